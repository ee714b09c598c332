"""What several processes share: the vectors in memory, and the settings of `accelerate launch`."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from torch.utils.data import DataLoader

from regen_hf.stages.training.collator import RegenCollator
from regen_hf.vectors.histories import Histories
from regen_hf.vectors.store import VectorStore, VectorWriter
from tests.paths import ROOT

ACCELERATE = ROOT / "scripts" / "accelerate"


def resident(process):
    """Bytes that a process holds, its part of what it shares with others counted (PSS).

    Without libraries: the part of them grows when a process of another test that has them too comes to its end.
    """
    held, counts = 0, True
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        first, *rest = line.split(maxsplit=5)
        if not first.endswith(":"):  # a mapping: addresses, rights, offset, device, inode, and the file if it has one
            counts = len(rest) < 5 or ".so" not in rest[-1]
        elif first == "Pss:" and counts:
            held += 1024 * int(rest[0])
    return held


def read_with_four_workers(store, users, purchases, width):
    """The sum of all that four workers read of `store`, and what they and this process hold on the way."""
    torch.set_num_threads(1)  # the workers need the cores
    histories = Histories(VectorStore(store), np.zeros((10, 8), np.float32), np.zeros((10, width), np.float16))
    examples = [
        {"input_ids": [1], "labels": [1], "row": row, "withheld": False, "kept": purchases} for row in range(users)
    ]
    batches = iter(
        DataLoader(
            examples,
            batch_size=8,
            collate_fn=RegenCollator(pad_token_id=0, histories=histories),
            num_workers=4,
            prefetch_factor=1,
            multiprocessing_context="fork",  # as where this process is not one of a pool
        )
    )
    processes = [os.getpid(), *(worker.pid for worker in batches._workers)]
    held, read = [], 0.0
    for number, batch in enumerate(batches):
        read += float(batch["history_content"].sum())
        if number >= 8 and number % 8 == 0 and number < users // 8 - 16:  # all workers are at work
            held.append(sum(resident(process) for process in processes))
    return read, held


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the proportional memory is Linux's to tell")
def test_four_workers_that_read_the_whole_store_hold_less_than_a_tenth_of_it(tmp_path):
    users, purchases, width = 2048, 50, 1024
    with VectorWriter(tmp_path, [purchases] * users, width) as writer:
        for _ in range(users // 64):
            writer.append(np.ones((64 * purchases, width), np.float16), np.zeros(64 * purchases, np.int32))
    del writer  # its own mapping would share the pages
    size = (tmp_path / "vectors.npy").stat().st_size
    # In a process of its own: what this one holds of other tests, its workers would copy as they touch it.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        read, held = pool.submit(read_with_four_workers, tmp_path, users, purchases, width).result()
    assert read == users * purchases * width  # all of it
    assert max(held) - held[0] < size / 10


def launched(name, *words):
    options, _, _ = _validate_launch_command(
        launch_command_parser().parse_args(["--config_file", str(ACCELERATE / name), *words, "scripts/train.py", "run"])
    )
    return options


@pytest.mark.parametrize("name", ["cpu2.yaml", "ddp.yaml", "fsdp.yaml"])
def test_accelerate_takes_every_file_of_settings(name):
    config = load_config_from_file(str(ACCELERATE / name))  # it refuses a key that it does not know
    assert config.num_processes == (2 if name == "cpu2.yaml" else 8)
    options = launched(name, "--num_processes", "3")
    assert (options.num_processes, options.num_machines) == (3, 1)
    assert options.use_cpu == (name == "cpu2.yaml")
    assert options.multi_gpu == (name != "fsdp.yaml")  # what starts several processes
    assert options.use_fsdp == (name == "fsdp.yaml")


def test_the_settings_of_fsdp_make_its_plugin():
    values = yaml.safe_load((ACCELERATE / "fsdp.yaml").read_text())["fsdp_config"]
    options = launched("fsdp.yaml")
    assert {name: getattr(options, name) for name in values} == values
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=values["fsdp_version"],
        reshard_after_forward=values["fsdp_reshard_after_forward"],
        auto_wrap_policy=values["fsdp_auto_wrap_policy"],
        state_dict_type=values["fsdp_state_dict_type"],
        cpu_offload=values["fsdp_offload_params"],
        cpu_ram_efficient_loading=values["fsdp_cpu_ram_efficient_loading"],
        activation_checkpointing=values["fsdp_activation_checkpointing"],
    )
    assert plugin.fsdp_version == 2
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
