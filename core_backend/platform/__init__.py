"""The vLLM platform: what vLLM asks about the device, and the configuration the device needs."""
