"""Read what an offline run of W&B wrote."""

import struct
from pathlib import Path


def records(folder: Path):
    """Yield an offline run's records, which no public reader of W&B opens: LevelDB blocks of 32 KiB with protobuf."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    data, place, whole = path.read_bytes(), 7, b""  # after W&B's header
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # a record's header does not fit into the block
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
