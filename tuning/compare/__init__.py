"""Full fine-tuning, untuned LoRA and a sweep's winner, trained and measured side by side."""
