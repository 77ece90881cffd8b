"""Headers and containers of checkpoints, good and evil."""

import os
import struct

DATA = {"classes": ["a", "b"], "input_size": 2, "preparation": {}, "reading": {}, "fingerprint": "f"}
HEADER = {"config": {"cell": "gru"}, **DATA, "epoch": 3}


# Files that are no checkpoints


class Opens:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def container(header_text, data=b""):
    return struct.pack("<Q", len(header_text)) + header_text + data
