"""The filter, read as the kernel does: which calls it lets through, on either machine."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelkeep.sandbox import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
OWN = 4242
HERE = 0xC000003E if seccomp.X86_64 else 0xC00000B7
REFUSED = {numbers.here for numbers in seccomp.REFUSED.values()} - {None}
CLONE, CLONE3, PRCTL, TGKILL, PRLIMIT, FCNTL, IOCTL, AFFINITY = (
    (56, 435, 157, 234, 302, 72, 16, 203) if seccomp.X86_64 else (220, 435, 167, 131, 261, 25, 29, 122)
)
ARGUED = {CLONE, CLONE3, PRCTL, TGKILL, PRLIMIT, FCNTL, IOCTL, AFFINITY}


def verdict(number: int, first: int = 0, second: int = 0, arch: int = HERE) -> int:
    """Run the filter over one call, by classic BPF's rules."""
    words = {0: number, 4: arch, 16: first & 0xFFFFFFFF, 24: second & 0xFFFFFFFF}
    steps, at, value = seccomp.program(OWN), 0, 0
    while True:
        step = steps[at]
        at += 1
        match step.code:
            case 0x20:
                value = words[step.operand]
            case 0x06:
                return step.operand
            case 0x15:
                at += step.if_true if value == step.operand else step.if_false
            case 0x35:
                at += step.if_true if value >= step.operand else step.if_false
            case 0x45:
                at += step.if_true if value & step.operand else step.if_false
            case _:
                raise AssertionError(step)


@given(st.integers(0, seccomp.NEWEST), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_a_call_is_refused_exactly_where_the_table_says_so(number, first, second):
    expected = EPERM if number in REFUSED else ALLOW
    if number not in ARGUED:
        assert verdict(number, first, second) == expected


@pytest.mark.parametrize("name", sorted(seccomp.REFUSED))
def test_what_the_table_names_is_refused(name):
    number = seccomp.REFUSED[name].here
    assert number is None or verdict(number) == EPERM


@given(st.integers(seccomp.NEWEST + 1, 0x3FFFFFFF))
def test_calls_newer_than_the_table_do_not_exist(number):
    assert verdict(number) == ENOSYS


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1).filter(lambda one: one != HERE))
def test_calls_of_another_machine_end_the_process(number, arch):
    assert verdict(number, arch=arch) == KILL


@pytest.mark.skipif(not seccomp.X86_64, reason="x32 is of x86-64")
@given(st.integers(0x40000000, 2**32 - 1))
def test_calls_of_x32_end_the_process(number):
    assert verdict(number) == KILL


@given(st.integers(0, 2**32 - 1))
def test_threads_can_be_made_and_nothing_else(flags):
    thread, apart = flags & 0x00010000, flags & 0x7E020080
    assert verdict(CLONE, flags) == (ALLOW if thread and not apart else EPERM)


def test_the_newer_way_to_make_threads_does_not_exist():
    assert verdict(CLONE3) == ENOSYS


@given(st.integers(0, 2**32 - 1))
def test_a_signal_goes_to_itself_alone(process):
    assert verdict(TGKILL, process) == (ALLOW if process == OWN else EPERM)


@pytest.mark.parametrize("call", [PRLIMIT, AFFINITY])
@given(st.integers(0, 2**32 - 1))
def test_limits_and_cores_are_those_of_itself_alone(call, process):
    assert verdict(call, process) == (ALLOW if process == 0 else EPERM)


@given(st.integers(0, 2**32 - 1))
def test_its_end_with_its_parent_and_its_secrecy_stay(option):
    assert verdict(PRCTL, option) == (EPERM if option in {1, 4} else ALLOW)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_no_descriptor_signals_anybody(fd, command):
    assert verdict(FCNTL, fd, command) == (EPERM if command in {8, 10, 15} else ALLOW)
    assert verdict(IOCTL, fd, command) == (EPERM if command in {0x5412, 0x541C, 0x8901, 0x8902} else ALLOW)


@pytest.mark.parametrize("request_code", [0x5412, 0x541C, 0x8901, 0x8902])
def test_no_terminal_is_typed_on_and_no_socket_signals(request_code):
    assert verdict(IOCTL, 0, request_code) == EPERM
