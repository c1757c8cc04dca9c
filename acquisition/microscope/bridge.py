"""The bridge to a Micro-Manager that runs as a program of its own: pycro-manager's ZMQ server.

Owns the first contact, the words for when it fails, and the differences between what a core gives
over the bridge and in this process. What is asked of the core is written in `microscope`.
"""

from __future__ import annotations

import atexit
import functools
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MicroscopeError

logger = logging.getLogger(__name__)

Image = tuple[NDArray[Any], dict[str, Any]]
"""Pixels (Y, X) and Micro-Manager's tags."""

DEFAULT_PORT = 4827
CONNECT_S = 2.0
ANSWER_MS = 5000
WATCH_MS = 100
FOLLOWED_FORMAT = "ND_TIFF"

_ended: dict[int, set[int]] = {}
"""Servers whose Micro-Manager has ended, by port, with the ports of the bridges to each."""

SWITCH_ON = (
    "start Micro-Manager, open Tools > Options and tick 'Run pycro-manager server on port "
    f"{DEFAULT_PORT}' (older versions: 'Run server on port'), or give its --port"
)


def server_version(port: int) -> str:
    """Ask the server on this computer for its version.

    Raises
    ------
    MicroscopeError
        If nobody listens there, or somebody who is not Micro-Manager.
    """
    import zmq

    try:
        with socket.create_connection(("127.0.0.1", port), timeout=CONNECT_S):
            pass
    except OSError as error:
        raise MicroscopeError(
            f"no Micro-Manager answers on port {port} ({error.strerror or error}); {SWITCH_ON}"
        ) from error
    asking: Any
    with zmq.Context.instance().socket(zmq.REQ) as asking:
        asking.setsockopt(zmq.LINGER, 0)
        asking.connect(f"tcp://127.0.0.1:{port}")
        asking.send_json({"command": "connect", "debug": False})
        if not asking.poll(ANSWER_MS):
            raise MicroscopeError(
                f"no Micro-Manager answers on port {port}: a program listens there but says "
                f"nothing for {ANSWER_MS / 1000:.0f} s; if it is Micro-Manager, close its open "
                f"dialogs or restart it, else {SWITCH_ON}"
            )
        reply = asking.recv_multipart()
    try:
        return str(json.loads(reply[0].decode("iso-8859-1"))["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise MicroscopeError(
            f"the program on port {port} is no Micro-Manager; {SWITCH_ON}"
        ) from error


@contextmanager
def watched_server(port: int, core: Any) -> Iterator[None]:
    """Within the block, let go of whoever waits for an answer when Micro-Manager ends.

    pycro-manager itself would wait for ever, and once more when the program ends. It also waits
    for ever where the garbage collector finds two of its objects together, so `core` is given
    back with the block.

    Raises
    ------
    MicroscopeError
        In place of what was raised because Micro-Manager ended.
    """
    gone, over = threading.Event(), threading.Event()
    watching = threading.Thread(
        target=_watch, args=(port, gone, over), name="quietscope bridge watch"
    )
    watching.start()
    try:
        yield
    except Exception as error:
        if gone.is_set():
            raise MicroscopeError(
                f"Micro-Manager on port {port} has ended; what was recorded until then is kept. "
                "Start Micro-Manager again, then this anew"
            ) from error
        raise
    finally:
        over.set()
        watching.join()
        with suppress(Exception):  # a core that is gone needs not be told
            core._close()


def _watch(port: int, gone: threading.Event, over: threading.Event) -> None:
    """Hold a connection of our own, and release pycro-manager's when that one breaks."""
    import zmq

    held: Any
    with zmq.Context.instance().socket(zmq.REQ) as held:
        held.setsockopt(zmq.LINGER, 0)
        monitor = held.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        held.connect(f"tcp://127.0.0.1:{port}")
        while not over.is_set() and not monitor.poll(WATCH_MS):
            pass
        held.disable_monitor()
        monitor.close(linger=0)
    if over.is_set():
        return
    logger.warning("Micro-Manager on port %d has ended", port)
    gone.set()
    _ended[port] = {port}
    _expect_threads_to_fail()
    _ended[port] |= _close_bridges()


def has_ended(port: int) -> bool:
    """Whether the Micro-Manager behind `port` has ended while it was watched."""
    return port in _ended


def expect_server(port: int) -> None:
    """Take note that a Micro-Manager is there, perhaps in place of one that has ended."""
    from pyjavaz.bridge import Bridge

    Bridge._ports_with_terminated_servers.difference_update(_ended.pop(port, ()))


def _close_bridges() -> set[int]:
    """Close all bridges, and return their ports: acquisitions have some of their own.

    Not by their `close`: it asks the server once more, and waits for threads that stay away.
    """
    from pyjavaz.bridge import Bridge

    cached = list(Bridge._cached_bridges_by_port.items())
    found = [(port, bridge) for port, reference in cached if (bridge := reference()) is not None]
    for port, bridge in found:
        Bridge._ports_with_terminated_servers.add(port)  # destructors stop waiting
        bridge._closed = True
        bridge._shutdown_event.set()
        Bridge._cached_bridges_by_port.pop(port, None)
    for _, bridge in found:
        with suppress(RuntimeError):  # another thread has just made or dropped one
            for shadow in list(bridge._java_objects):
                shadow._closed = True  # or each would ask a server that is gone to forget it
        bridge._response_queue.put({"type": "none"})  # for the one that is asking just now
    return {port for port, _ in found}


@functools.cache
def _expect_threads_to_fail() -> None:
    """Log, without a traceback, that pycro-manager's threads asked a server that is gone."""
    usual = threading.excepthook

    def note(failed: threading.ExceptHookArgs) -> None:
        if "Bridge has been closed" in str(failed.exc_value):
            logger.debug("a thread of pycro-manager ended: %s", failed.exc_value)
        else:
            usual(failed)

    threading.excepthook = note


@functools.cache
def _forget_objects_that_are_gone() -> None:
    """Have one function give all objects of Java back at the exit of this program.

    pyjavaz registers one for every object, and keeps it when the object has long been given back:
    some 300 bytes for each of several objects per image.
    """
    from pyjavaz import bridge

    bridge.atexit = SimpleNamespace(register=lambda cleanup: cleanup)
    atexit.register(_give_objects_back)


def _give_objects_back() -> None:
    from pyjavaz.bridge import Bridge

    for reference in list(Bridge._cached_bridges_by_port.values()):
        for shadow in list(getattr(reference(), "_java_objects", ())):
            with suppress(Exception):  # a server that is gone needs not be told
                shadow._close()


def version_problem(found: str) -> str:
    """Return what to do about a server of this version, "" if it fits the installed pycro-manager.

    Each release of pycro-manager is made for one version of the server.
    """
    from pyjavaz.bridge import Bridge

    expected = str(Bridge._EXPECTED_ZMQ_SERVER_VERSION)
    if found == expected:
        return ""
    ours, theirs = (tuple(int(n) for n in v.split(".") if n.isdigit()) for v in (expected, found))
    newer = "Micro-Manager" if theirs > ours else "pycro-manager"
    older = (
        "pycro-manager (pip install --upgrade pycromanager)" if theirs > ours else "Micro-Manager"
    )
    return (
        f"Micro-Manager's server has version {found}, but pycro-manager {version('pycromanager')} "
        f"was made for {expected}: {newer} is newer, so update {older}"
    )


def remote_core(port: int) -> Any:
    """Return the core of the Micro-Manager behind `port`.

    Raises
    ------
    MicroscopeError
        If it does not answer, if its version does not go with pycro-manager, or if it has no core.
    """
    from mmpycorex.core import ZMQRemoteMMCoreJ

    if problem := version_problem(server_version(port)):
        raise MicroscopeError(problem)
    expect_server(port)
    _forget_objects_that_are_gone()
    try:
        return ZMQRemoteMMCoreJ(port=port, timeout=ANSWER_MS)
    except Exception as error:  # pycro-manager's own sentence hides what Java said
        reason = str(error.__context__ or error).strip().split("\n")[0]
        raise MicroscopeError(
            f"the Micro-Manager on port {port} answers but gives no core ({reason}); load its "
            "hardware configuration there, or restart it"
        ) from error


def remote_studio(port: int) -> Any:
    """Return Micro-Manager's own interface: its windows, its acquisitions."""
    from pycromanager import Studio

    return Studio(port=port, timeout=ANSWER_MS)


def newest_image(core: Any) -> Image | None:
    """Return pixels (Y, X) and tags of the newest live image; None while there is none."""
    try:
        tagged = core.get_last_tagged_image()
    except Exception:  # the buffer is empty: the bridge has no type of its own for that
        return None
    return _image(tagged)


def snapped_image(core: Any) -> Image:
    """Return pixels (Y, X) and tags of the image that was snapped last."""
    return _image(core.get_tagged_image())


def _image(tagged: Any) -> Image:
    # Java has no arrays of several dimensions that would travel: an image comes flat.
    tags = dict(tagged.tags)
    return np.reshape(tagged.pix, (int(tags["Height"]), int(tags["Width"]))), tags


def running_acquisition(port: int) -> Path | None:
    """Return the folder in which Micro-Manager saves the acquisition that its window runs now.

    None while it runs none, and where there is no window to ask.

    Raises
    ------
    MicroscopeError
        If the acquisition is not saved in a format that can be read while it is written.
    """
    try:
        running, root, saving = _multi_d(port)
    except Exception:  # a headless or an old Micro-Manager
        return None
    if not running:
        return None
    if saving != FOLLOWED_FORMAT:
        how = f"saved as {saving}" if saving else "not saved"
        raise MicroscopeError(
            f"Micro-Manager's acquisition is {how}, so it cannot be followed; tick 'Save Images' "
            "in the Multi-D window and choose the saving format 'NDTiff'"
        )
    return root


def is_acquiring(port: int) -> bool:
    """Whether Micro-Manager's window runs an acquisition now."""
    return bool(remote_studio(port).acquisitions().is_acquisition_running())


def multi_d_saving(port: int) -> tuple[Path, str]:
    """Return where Micro-Manager's Multi-D window saves, and the format; empty if it does not."""
    _, root, saving = _multi_d(port)
    return root, saving


def _multi_d(port: int) -> tuple[bool, Path, str]:
    """Return whether an acquisition runs, where it is saved, and how."""
    acquisitions = remote_studio(port).acquisitions()
    settings = acquisitions.get_acquisition_settings()
    saving = str(settings.save_mode().to_string()) if settings.save() else ""
    return bool(acquisitions.is_acquisition_running()), Path(str(settings.root())), saving


def strings(vector: Any) -> list[str]:
    """Return the core's list of names: a sequence in this process, an object of Java otherwise."""
    if hasattr(vector, "get"):
        return [str(vector.get(index)) for index in range(vector.size())]
    return [str(word) for word in vector]


def settings_of(configuration: Any) -> list[tuple[str, str, str]]:
    """Return the device, property and value of each setting of a core's Configuration."""
    found = []
    for index in range(configuration.size()):
        # Over the bridge names are in snake case, of an object in this process they are not.
        if hasattr(configuration, "get_setting"):
            one = configuration.get_setting(index)
            named = one.get_device_label(), one.get_property_name(), one.get_property_value()
        else:
            one = configuration.getSetting(index)
            named = one.getDeviceLabel(), one.getPropertyName(), one.getPropertyValue()
        found.append((str(named[0]), str(named[1]), str(named[2])))
    return found
