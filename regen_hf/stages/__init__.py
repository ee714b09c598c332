"""The stages of a run. A stage never imports another stage; they exchange files through `regen_hf.outputs`."""
