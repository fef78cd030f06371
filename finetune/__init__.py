"""Fine-tuning: from a form to a job that outlives the page. Only train*.py imports torch, only tab*.py gradio."""
