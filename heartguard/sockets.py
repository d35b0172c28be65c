"""Sending, and receiving what has come already, without giving up the interpreter's lock.

Python's own socket calls release the lock, even where they do not wait. On a busy core each release
wakes another thread and puts this one to the end of the queue, which costs more than the call itself.
"""

import ctypes
import socket

_libc = ctypes.PyDLL(None)
_send = _libc.send
_send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
_send.restype = ctypes.c_ssize_t
_recv = _libc.recv
_recv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_recv.restype = ctypes.c_ssize_t
_SEND_FLAGS = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
_RECV_FLAGS = int(socket.MSG_DONTWAIT)

SIZE = 16 * 1024


class Quick:
    """A plain socket's quick calls. They never wait, so they need no time limit. Not thread-safe."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._fd = opened.fileno()
        self._memory = ctypes.create_string_buffer(SIZE)
        self._at = ctypes.addressof(self._memory)

    def sendall(self, data: bytes) -> None:
        """As the socket's own; only what does not fit into the kernel's buffer is waited for."""
        sent = _send(self._fd, data, len(data), _SEND_FLAGS)
        if sent != len(data):
            self._socket.sendall(data[max(0, sent) :])

    def forget(self) -> None:
        """The socket is closed: its number may soon be another's."""
        self._fd = -1

    def received(self) -> bytes | None:
        """What has come: ``b""`` where the other side has closed, None where there is nothing (or an error) yet."""
        size = _recv(self._fd, self._at, SIZE, _RECV_FLAGS)
        return ctypes.string_at(self._at, size) if size >= 0 else None
