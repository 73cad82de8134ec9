"""The other end of a codec process: starts it when the first compressed frame comes, and outlives its death."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import appliance
from appliance.dicom.image.codecs import ANSWER, LENGTHS, OK, FrameFormat

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray


class CodecError(Exception):
    """A frame could not be decompressed; the process may have died of it."""


class CodecProcess:
    """Decompresses frames in a process of its own, one after the other."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, frame: bytes, form: FrameFormat) -> NDArray[Any]:
        """Decompress one frame.

        Parameters
        ----------
        frame
            Compressed image.
        form
            Its format.

        Returns
        -------
        numpy.ndarray
            Integers, ``(rows, columns)``, read-only.

        Raises
        ------
        CodecError
            When the codec refuses the frame or dies of it; the next call starts another process.
        """
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise CodecError
        description = form.to_json()
        try:
            process.stdin.write(LENGTHS.pack(len(description), len(frame)) + description)
            process.stdin.write(frame)
            process.stdin.flush()
            head = process.stdout.read(ANSWER.size)
        except OSError as error:
            self.close()
            raise CodecError from error
        if len(head) < ANSWER.size:
            self.close()
            raise CodecError
        status, dtype, length = ANSWER.unpack(head)
        if status != OK:
            raise CodecError
        pixels = process.stdout.read(length)
        if len(pixels) < length:
            self.close()
            raise CodecError
        array = np.frombuffer(pixels, np.dtype(dtype.rstrip(b"\0").decode()))
        return array.reshape(form.rows, form.columns)

    def _start(self) -> subprocess.Popen[bytes]:
        # The child finds the package wherever this process found it, whatever is the working directory.
        package_root = str(Path(appliance.__file__).resolve().parents[1])
        search_path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH", ""))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "appliance.dicom.image.codecs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # codecs print what damages them; the refusal says it in our words
            env={**os.environ, "PYTHONPATH": search_path},
        )
        return self._process

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was still buffered for a dead process is lost with it


class CodecProcesses:
    """One codec process for each thread that asks; all end with the context."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[CodecProcess] = []
        self._lock = threading.Lock()

    def mine(self) -> CodecProcess:
        """Return the calling thread's codec process."""
        process: CodecProcess | None = getattr(self._own, "process", None)
        if process is None:
            process = self._own.process = CodecProcess()
            with self._lock:
                self._all.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self._all:
            process.close()
