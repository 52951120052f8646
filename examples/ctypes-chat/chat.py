"""Digi from a language that has no binding: Python's ctypes, and nothing but what include/digi.h says.

    python chat.py path/to/libdigi.so

Prints what alice and bob are shown of one message. (For Python there is `import digi`; this is how to begin elsewhere.)
"""

import ctypes
import sys
from ctypes import byref, c_char_p, c_int32, c_int64, c_size_t, c_void_p

digi = ctypes.CDLL(sys.argv[1])


class Text(ctypes.Structure):
    _fields_ = [("data", c_char_p), ("length", c_size_t)]


class Member(ctypes.Structure):
    _fields_ = [("user", Text), ("user_name", Text), ("role", c_int32)]


class Scope(ctypes.Structure):
    _names = ("token", "user", "user_name", "after", "origin", "remote", "login")
    _fields_ = [("size", c_size_t), *[(name, Text) for name in _names], ("data", c_void_p)]


digi.digi_error_text.restype = digi.digi_result_name.restype = c_char_p
digi.digi_frame_text.restype = c_void_p
digi.digi_error_text.argtypes = digi.digi_error_free.argtypes = [c_void_p]


def text(string: str) -> Text:
    return Text(string.encode(), len(string.encode()))


def call(name: str, *arguments: object) -> None:
    """A function whose last parameter is the error."""
    error = c_void_p()
    if result := getattr(digi, f"digi_{name}")(*arguments, byref(error)):
        reason = digi.digi_error_text(error).decode()
        digi.digi_error_free(error)
        raise RuntimeError(f"{name}: {digi.digi_result_name(result).decode()}: {reason}")


def make(name: str, *arguments: object) -> c_void_p:
    """What a function gives through the parameter before that."""
    made = c_void_p()
    call(name, *arguments, byref(made))
    return made


secret = b"a secret of at least thirty-two bytes"
cipher = make("cipher_new", secret, c_size_t(len(secret)))
engine = make("engine_new", make("config_new", cipher))
people = {"7": "alice", "8": "bob"}
members = (Member * 2)(*[Member(text(key), text(name), 0) for key, name in people.items()])
room = c_int64()
call("engine_create_room", engine, c_int64(0), b"lobby", c_size_t(5), members, c_size_t(2), byref(room))
token = ctypes.create_string_buffer(192)
call("cipher_seal", cipher, 0, room, token, c_size_t(192), None)

sessions = {}
for key, name in people.items():
    scope = Scope(ctypes.sizeof(Scope), text(token.value.decode()), text(key), text(name))
    sessions[name] = make("engine_connect", engine, byref(scope))


def show_next(name: str) -> None:
    frame = make("session_next", sessions[name], c_int64(-1))
    length = c_size_t()
    data = digi.digi_frame_text(frame, byref(length))
    print(f"{name}: {ctypes.string_at(data, length.value).decode()}")
    digi.digi_frame_free(frame)


for name in sessions:  # Who has had the first frame is in the room.
    show_next(name)
hello = b'{"type": "add", "message": "hello from ctypes"}'
call("session_receive", sessions["alice"], hello, c_size_t(len(hello)), c_int64(-1))
for name, session in sessions.items():
    show_next(name)
    digi.digi_session_free(session)
call("engine_close", engine)
digi.digi_engine_free(engine)
digi.digi_cipher_free(cipher)
