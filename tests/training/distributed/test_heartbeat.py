"""Rank 0 finds the rank that stopped counting, and does not mistake a finished rank for one that hangs."""

import multiprocessing
import os
import signal
import socket
import time

import torch

from warmstart.training.distributed.heartbeat import Heartbeat

SECONDS = 4.0


def rank(number: int, port: int, ended: bool) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=number, world_size=3)
    heartbeat = Heartbeat(SECONDS)
    heartbeat.start()
    torch.distributed.barrier()
    if ended:
        heartbeat.end()
    time.sleep(600)


def test_the_silent_rank_is_named_and_one_that_has_ended_is_not(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=rank, args=(number, port, number == 2), daemon=True) for number in (1, 2)]
    for other in others:
        other.start()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    torch.distributed.init_process_group("gloo", rank=0, world_size=3)
    heartbeat = Heartbeat(SECONDS)
    heartbeat.start()
    try:
        torch.distributed.barrier()
        while len(heartbeat._seen) < 2 or heartbeat._seen[2][0] != "done":
            time.sleep(0.1)
        assert heartbeat.silent() == []
        os.kill(others[0].pid, signal.SIGSTOP)
        while not (silent := heartbeat.silent()):
            time.sleep(0.1)
        assert silent == [1]
    finally:
        heartbeat.end()
        for other in others:
            other.kill()
        torch.distributed.destroy_process_group()
