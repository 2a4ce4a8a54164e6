"""Runs a program for which the kernel refuses some system calls: refuse.py ERRNO NUMBER[,NUMBER...] PROGRAM [ARG]..."""
import ctypes, os, struct, sys

errno, numbers = int(sys.argv[1]), [int(number) for number in sys.argv[2].split(",")]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
code = [(LOAD, 0, 0, 0)]
for number in numbers:
    code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, 0x00050000 | errno)]
code.append((RETURN, 0, 0, 0x7FFF0000))
raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(code), ctypes.addressof(raw))
libc.prctl(38, 1, 0, 0, 0)
if libc.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit("no filter: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[3], sys.argv[3:])
