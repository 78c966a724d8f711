"""Seccomp: the system calls that a runner does without, refused by a filter of our own.

A model needs memory, threads, its open sockets and files of the view. Everything that reaches another process, makes one,
opens a socket, changes a file's owner or mode, or has often been the way into the kernel is refused with EPERM; a call that is
newer than this table does not exist (ENOSYS). Numbers are of the kernel's tables for x86-64 and arm64.
"""

import errno
import os
import struct
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from modelkeep.sandbox import kernel
from modelkeep.sandbox.kernel import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, X86_64


class Step(NamedTuple):
    """One instruction of classic BPF; jumps count the steps to leave out."""

    code: int
    if_true: int
    if_false: int
    operand: int


class Numbers(NamedTuple):
    """A call's number on either machine; None where there is no such call."""

    x86_64: int | None
    arm64: int | None

    @property
    def here(self) -> int | None:
        """The number on this machine."""
        return self.x86_64 if X86_64 else self.arm64


REFUSED = {
    # other processes
    "execve": Numbers(59, 221),
    "execveat": Numbers(322, 281),
    "fork": Numbers(57, None),
    "vfork": Numbers(58, None),
    "kcmp": Numbers(312, 272),
    "kill": Numbers(62, 129),
    "pidfd_getfd": Numbers(438, 438),
    "pidfd_open": Numbers(434, 434),
    "pidfd_send_signal": Numbers(424, 424),
    "process_madvise": Numbers(440, 440),
    "process_mrelease": Numbers(448, 448),
    "process_vm_readv": Numbers(310, 270),
    "process_vm_writev": Numbers(311, 271),
    "ptrace": Numbers(101, 117),
    "rt_sigqueueinfo": Numbers(129, 138),
    "rt_tgsigqueueinfo": Numbers(297, 240),
    "tkill": Numbers(200, 130),
    # sockets, and memory that is shared or hidden
    "accept": Numbers(43, 202),
    "accept4": Numbers(288, 242),
    "bind": Numbers(49, 200),
    "connect": Numbers(42, 203),
    "listen": Numbers(50, 201),
    "memfd_create": Numbers(319, 279),
    "memfd_secret": Numbers(447, 447),
    "mq_open": Numbers(240, 180),
    "msgget": Numbers(68, 186),
    "semget": Numbers(64, 190),
    "shmat": Numbers(30, 196),
    "shmctl": Numbers(31, 195),
    "shmget": Numbers(29, 194),
    "socket": Numbers(41, 198),
    "socketpair": Numbers(53, 199),
    # what files are, and whose
    "chmod": Numbers(90, None),
    "chown": Numbers(92, None),
    "fanotify_init": Numbers(300, 262),
    "fchmod": Numbers(91, 52),
    "fchmodat": Numbers(268, 53),
    "fchmodat2": Numbers(452, 452),
    "fchown": Numbers(93, 55),
    "fchownat": Numbers(260, 54),
    "fremovexattr": Numbers(199, 16),
    "fsetxattr": Numbers(190, 7),
    "futimesat": Numbers(261, None),
    "inotify_add_watch": Numbers(254, 27),
    "inotify_init": Numbers(253, None),
    "inotify_init1": Numbers(294, 26),
    "lchown": Numbers(94, None),
    "lremovexattr": Numbers(198, 15),
    "lsetxattr": Numbers(189, 6),
    "mknod": Numbers(133, None),
    "mknodat": Numbers(259, 33),
    "name_to_handle_at": Numbers(303, 264),
    "open_by_handle_at": Numbers(304, 265),
    "removexattr": Numbers(197, 14),
    "setxattr": Numbers(188, 5),
    "utime": Numbers(132, None),
    "utimensat": Numbers(280, 88),
    "utimes": Numbers(235, None),
    # namespaces and mounts
    "chroot": Numbers(161, 51),
    "fsconfig": Numbers(431, 431),
    "fsmount": Numbers(432, 432),
    "fsopen": Numbers(430, 430),
    "fspick": Numbers(433, 433),
    "listmount": Numbers(458, 458),
    "mount": Numbers(165, 40),
    "mount_setattr": Numbers(442, 442),
    "move_mount": Numbers(429, 429),
    "open_tree": Numbers(428, 428),
    "pivot_root": Numbers(155, 41),
    "setns": Numbers(308, 268),
    "statmount": Numbers(457, 457),
    "umount2": Numbers(166, 39),
    "unshare": Numbers(272, 97),
    # the kernel itself
    "acct": Numbers(163, 89),
    "add_key": Numbers(248, 217),
    "bpf": Numbers(321, 280),
    "delete_module": Numbers(176, 106),
    "finit_module": Numbers(313, 273),
    "init_module": Numbers(175, 105),
    "io_setup": Numbers(206, 0),
    "io_submit": Numbers(209, 2),
    "io_uring_enter": Numbers(426, 426),
    "io_uring_register": Numbers(427, 427),
    "io_uring_setup": Numbers(425, 425),
    "ioperm": Numbers(173, None),
    "iopl": Numbers(172, None),
    "kexec_file_load": Numbers(320, 294),
    "kexec_load": Numbers(246, 104),
    "keyctl": Numbers(250, 219),
    "landlock_create_ruleset": Numbers(444, 444),
    "lookup_dcookie": Numbers(212, 18),
    "migrate_pages": Numbers(256, 238),
    "modify_ldt": Numbers(154, None),
    "move_pages": Numbers(279, 239),
    "perf_event_open": Numbers(298, 241),
    "personality": Numbers(135, 92),
    "quotactl": Numbers(179, 60),
    "quotactl_fd": Numbers(443, 443),
    "reboot": Numbers(169, 142),
    "request_key": Numbers(249, 218),
    "seccomp": Numbers(317, 277),
    "splice": Numbers(275, 76),
    "swapoff": Numbers(168, 225),
    "swapon": Numbers(167, 224),
    "syslog": Numbers(103, 116),
    "tee": Numbers(276, 77),
    "userfaultfd": Numbers(323, 282),
    "vhangup": Numbers(153, 58),
    "vmsplice": Numbers(278, 75),
    # a larger share of the machine
    "ioprio_set": Numbers(251, 30),
    "sched_setattr": Numbers(314, 274),
    "sched_setparam": Numbers(142, 118),
    "sched_setscheduler": Numbers(144, 119),
    "set_mempolicy_home_node": Numbers(450, 450),
    "setpriority": Numbers(141, 140),
    "setrlimit": Numbers(160, 164),
}
"""Calls that are refused whatever their arguments."""

NEWEST = 462  # mseal, of Linux 6.10; numbers are the same on both machines since 424
"""The last call that this table knows."""

CLONE, _CLONE3 = Numbers(56, 220), Numbers(435, 435)
_PRLIMIT64, _SCHED_SETAFFINITY, _TGKILL = Numbers(302, 261), Numbers(203, 122), Numbers(234, 131)
_FCNTL, _IOCTL, _PRCTL, _SECCOMP = Numbers(72, 25), Numbers(16, 29), Numbers(157, 167), REFUSED["seccomp"]
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # either would type on a terminal
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _FIOSETOWN, _SIOCSPGRP = 8, 10, 15, 0x8901, 0x8902  # a socket could signal any process
_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020080  # the latter: any namespace, that of time too
_X32_BIT = 0x40000000
_AUDIT_ARCH = 0xC000003E if X86_64 else 0xC00000B7
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1

_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_NUMBER_AT, _ARCH_AT, _FIRST_AT, _SECOND_AT = 0, 4, 16, 24  # offsets in struct seccomp_data; the low words of arguments
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_REFUSE, _UNKNOWN = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def install() -> None:
    """Filter the calls of this process, all its threads, for good; needs no_new_privs. Raises `OSError`."""
    steps = program(os.getpid())
    kernel.install_filter(number(_SECCOMP), _SET_MODE_FILTER, _FLAG_TSYNC, len(steps), packed(steps))


def packed(steps: Sequence[Step]) -> bytes:
    """Return a filter as the kernel reads it."""
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def program(own: int) -> list[Step]:
    """Return the filter for a process with this id."""
    return [*_common(), *_only(_TGKILL, own), Step(_RETURN, 0, 0, _ALLOW)]


@cache
def _common() -> tuple[Step, ...]:
    refused = sorted(one.here for one in REFUSED.values() if one.here is not None)
    steps = [
        Step(_LOAD, 0, 0, _ARCH_AT),
        Step(_EQUAL, 1, 0, _AUDIT_ARCH),
        Step(_RETURN, 0, 0, _KILL),
        Step(_LOAD, 0, 0, _NUMBER_AT),
        *([Step(_AT_LEAST, 0, 1, _X32_BIT), Step(_RETURN, 0, 0, _KILL)] if X86_64 else []),
        Step(_AT_LEAST, 0, 1, NEWEST + 1),
        Step(_RETURN, 0, 0, _UNKNOWN),
        Step(_EQUAL, 0, 1, number(_CLONE3)),
        Step(_RETURN, 0, 0, _UNKNOWN),  # so that the C library falls back to clone, whose flags can be read here
    ]
    for one in refused:
        steps += [Step(_EQUAL, 0, 1, one), Step(_RETURN, 0, 0, _REFUSE)]
    steps += [
        Step(_EQUAL, 0, 5, number(CLONE)),
        Step(_LOAD, 0, 0, _FIRST_AT),
        Step(_ANY_BIT, 0, 2, _CLONE_THREAD),
        Step(_ANY_BIT, 1, 0, _CLONE_NEW),
        Step(_RETURN, 0, 0, _ALLOW),
        Step(_RETURN, 0, 0, _REFUSE),
        *_only(_PRLIMIT64, 0),
        *_only(_SCHED_SETAFFINITY, 0),
    ]
    for option in (PR_SET_PDEATHSIG, PR_SET_DUMPABLE):
        steps += _never(_PRCTL, _FIRST_AT, option)
    for command in (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX):
        steps += _never(_FCNTL, _SECOND_AT, command)
    for request in (_TIOCSTI, _TIOCLINUX, _FIOSETOWN, _SIOCSPGRP):
        steps += _never(_IOCTL, _SECOND_AT, request)
    return tuple(steps)


def _only(call: Numbers, value: int) -> list[Step]:
    """Allow the call with this first argument alone."""
    return [
        Step(_EQUAL, 0, 4, number(call)),
        Step(_LOAD, 0, 0, _FIRST_AT),
        Step(_EQUAL, 0, 1, value),
        Step(_RETURN, 0, 0, _ALLOW),
        Step(_RETURN, 0, 0, _REFUSE),
    ]


def _never(call: Numbers, at: int, value: int) -> list[Step]:
    """Refuse the call with this argument; what comes after looks at the call's number again."""
    return [
        Step(_EQUAL, 0, 4, number(call)),
        Step(_LOAD, 0, 0, at),
        Step(_EQUAL, 0, 1, value),
        Step(_RETURN, 0, 0, _REFUSE),
        Step(_LOAD, 0, 0, _NUMBER_AT),
    ]


def number(call: Numbers) -> int:
    """Return the call's number on this machine; raises `LookupError` where it has none."""
    if call.here is None:
        raise LookupError("no such call on this machine")
    return call.here
