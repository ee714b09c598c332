"""Training: one fused model for all tasks, with TRL's SFTTrainer (section 5.1)."""
