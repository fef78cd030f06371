"""What both rooms share: models, data, prompts, words, the workspace on disk. Nothing here imports torch or gradio."""
