"""CF and content vectors of histories."""

import torch

from regen_hf.outputs import rows, split_files


def test_a_batch_of_empty_histories_still_passes_the_adapter(histories):
    batch = histories.batch([None, None], [False, False])
    assert batch["history_mask"].tolist() == [[False], [False]]


def test_the_stored_vectors_of_the_withheld_view_are_the_processors(finished_run, processor, histories):
    user = next(rows(split_files(finished_run / "dataset", "train")))
    for task, withheld in (("product_endorsement", True), ("purchase_reason", False)):
        inputs = processor(history=user["purchase_history"], task=task)
        cf, content = histories.get(0, withheld)
        torch.testing.assert_close(inputs["history_cf"][0], torch.from_numpy(cf))
        torch.testing.assert_close(inputs["history_content"][0], torch.from_numpy(content), atol=2e-3, rtol=0)
