"""The process that holds the weights and the KV cache, and runs the model's steps."""
