"""What W&B wrote offline, read back."""

import struct
from pathlib import Path


def records(folder: Path):
    """What an offline run wrote. W&B ships no reader: a LevelDB log (32 KiB blocks) of protobuf records."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    data, place, whole = path.read_bytes(), 7, b""  # behind W&B's own header
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # too little left in the block for a record's header
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # complete, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record
