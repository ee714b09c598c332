"""Training: six tasks, one fused model, with TRL's SFTTrainer (section 5.1)."""
