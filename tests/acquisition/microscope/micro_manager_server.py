"""A running Micro-Manager as pycro-manager sees it: the real core behind the bridge's protocol.

Speaks what Micro-Manager's ZMQ server (version 5.1.0) speaks, over real sockets: its answers have
the form that the Java side gives them (`unserialized-object` with the methods' Java types, arrays
as binary parts, `none` for null). Behind it stands the demo camera's core in this process, so
pycro-manager in the test's process takes its Java path. A program of its own, started by
test_attach; it prints its port and runs until its standard input is closed.

    python micro_manager_server.py CONTROL_FOLDER [--version 5.1.0] [--save-mode ND_TIFF]
                                   [--no-core]

Files in the control folder say what a person does at Micro-Manager's window: `live` (live mode is
on), `acquiring` (an acquisition of the Multi-D window runs).
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import ClassVar

import numpy as np
import pymmcore
import zmq
from mm_test_adapters import device_adapter_path
from ndstorage.ndtiff_dataset import NDTiffDataset

STRING, INT, DOUBLE, BOOLEAN = "java.lang.String", "int", "double", "boolean"
CONTEXT = zmq.Context.instance()


def no_arguments(*names):
    return {name: [[]] for name in names}


class Shadowed:
    """An object that stays on this side; the other side gets a description and a handle."""

    java_class = "java.lang.Object"
    interfaces: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    api: ClassVar[dict[str, list[list[str]]]] = {}


class Rectangle(Shadowed):
    java_class = "java.awt.Rectangle"
    fields = ("x", "y", "width", "height")

    def __init__(self, x, y, width, height):
        self.x, self.y, self.width, self.height = x, y, width, height


class TaggedImage(Shadowed):
    java_class = "mmcorej.TaggedImage"
    fields = ("pix", "tags")

    def __init__(self, pixels, tags):
        self.pix, self.tags = np.ascontiguousarray(pixels).ravel(), tags


class StrVector(Shadowed):
    java_class = "mmcorej.StrVector"
    api: ClassVar = {"size": [[]], "get": [[INT]]}

    def __init__(self, words):
        self._words = list(words)

    def size(self):
        return len(self._words)

    def get(self, index):
        return self._words[index]


class PropertySetting(Shadowed):
    java_class = "mmcorej.PropertySetting"
    api: ClassVar = no_arguments("getDeviceLabel", "getPropertyName", "getPropertyValue")

    def __init__(self, setting):
        self._setting = setting

    def __getattr__(self, name):
        return getattr(self._setting, name)


class Configuration(Shadowed):
    java_class = "mmcorej.Configuration"
    api: ClassVar = {"size": [[]], "getSetting": [[INT]]}

    def __init__(self, configuration):
        self._configuration = configuration

    def size(self):
        return self._configuration.size()

    def getSetting(self, index):
        return PropertySetting(self._configuration.getSetting(index))


class Enum(Shadowed):
    java_class = "org.micromanager.data.Datastore$SaveMode"
    api: ClassVar = {"toString": [[]], "name": [[]]}

    def __init__(self, name):
        self._name = name

    def toString(self):
        return self._name


class CMMCore(Shadowed):
    java_class = "mmcorej.CMMCore"
    api: ClassVar = {
        **no_arguments(
            "getVersionInfo",
            "getAPIVersionInfo",
            "getCameraDevice",
            "getChannelGroup",
            "getImageHeight",
            "getImageWidth",
            "getBytesPerPixel",
            "getImageBitDepth",
            "getNumberOfComponents",
            "getNumberOfCameraChannels",
            "getPixelSizeUm",
            "isBufferOverflowed",
            "getCircularBufferMemoryFootprint",
            "snapImage",
            "getTaggedImage",
            "getLastTaggedImage",
            "getFocusDevice",
            "getXYStageDevice",
            "getShutterDevice",
            "getAutoShutter",
        ),
        "getPosition": [[], [STRING]],
        "setPosition": [[DOUBLE], [STRING, DOUBLE]],
        "getXPosition": [[], [STRING]],
        "getYPosition": [[], [STRING]],
        "setXYPosition": [[DOUBLE, DOUBLE], [STRING, DOUBLE, DOUBLE]],
        "getShutterOpen": [[], [STRING]],
        "setShutterOpen": [[BOOLEAN], [STRING, BOOLEAN]],
        "setAutoShutter": [[BOOLEAN]],
        "waitForDevice": [[STRING]],
        "setConfig": [[STRING, STRING]],
        "waitForConfig": [[STRING, STRING]],
        "getConfigGroupState": [[STRING]],
        "getDevicePropertyNames": [[STRING]],
        "hasPropertyLimits": [[STRING, STRING]],
        "getPropertyLowerLimit": [[STRING, STRING]],
        "getPropertyUpperLimit": [[STRING, STRING]],
        "getExposure": [[], [STRING]],
        "setExposure": [[DOUBLE], [STRING, DOUBLE]],
        "isSequenceRunning": [[], [STRING]],
        "getROI": [[], [STRING]],
        "clearROI": [[]],
        "setROI": [[INT] * 4, [STRING, *[INT] * 4]],
        "hasProperty": [[STRING, STRING]],
        "getProperty": [[STRING, STRING]],
        "setProperty": [[STRING, STRING, STRING], [STRING, STRING, BOOLEAN]],
        "getDeviceName": [[STRING]],
        "getDeviceLibrary": [[STRING]],
        "getAvailableConfigGroups": [[]],
        "getAvailableConfigs": [[STRING]],
    }

    def __init__(self):
        core = pymmcore.CMMCore()
        core.setDeviceAdapterSearchPaths([device_adapter_path()])
        core.loadSystemConfiguration(str(Path(device_adapter_path()) / "MMConfig_demo.cfg"))
        core.setCircularBufferMemoryFootprint(64)
        self.core = core
        self.in_burst = threading.Event()

    def __getattr__(self, name):
        return getattr(self.core, name)

    def getROI(self):
        return Rectangle(*self.core.getROI())

    def getAvailableConfigGroups(self):
        return StrVector(self.core.getAvailableConfigGroups())

    def getAvailableConfigs(self, group):
        return StrVector(self.core.getAvailableConfigs(group))

    def getDevicePropertyNames(self, device):
        return StrVector(self.core.getDevicePropertyNames(device))

    def getConfigGroupState(self, group):
        return Configuration(self.core.getConfigGroupState(group))

    def getTaggedImage(self):
        return TaggedImage(self.core.getImage(), self._tags())

    def getLastTaggedImage(self):
        metadata = pymmcore.Metadata()
        image = self.core.getLastImageMD(metadata)
        tags = {key: metadata.GetSingleTag(key).GetValue() for key in metadata.GetKeys()}
        return TaggedImage(image, {**tags, **self._tags()})

    def popNextTaggedImage(self):
        metadata = pymmcore.Metadata()
        image = self.core.popNextImageMD(metadata)
        tags = {key: metadata.GetSingleTag(key).GetValue() for key in metadata.GetKeys()}
        return TaggedImage(image, {**tags, **self._tags()})

    def _tags(self):
        """Return what Java's engine puts on every image: the state of the whole system.

        The camera itself is named by the core, on images of hardware sequences only.
        """
        size, camera = self.core.getBytesPerPixel(), self.core.getCameraDevice()
        state = {
            f"{camera}-{name}": self.core.getProperty(camera, name)
            for name in self.core.getDevicePropertyNames(camera)
        }
        return {
            "Width": self.core.getImageWidth(),
            "Height": self.core.getImageHeight(),
            "PixelType": {1: "GRAY8", 2: "GRAY16", 4: "RGB32"}[size],
            "BitDepth": self.core.getImageBitDepth(),
            "ROI": "-".join(map(str, self.core.getROI())),
            "Binning": self.core.getProperty(camera, "Binning"),
            "PixelSizeUm": self.core.getPixelSizeUm(),
            "Core-Camera": camera,
            **state,
        }


# ------------------------------------------------------------------- Micro-Manager's window


class Compatibility(Shadowed):
    java_class = "org.micromanager.internal.DefaultCompatibilityInterface"
    api: ClassVar = {"getVersion": [[]]}

    def getVersion(self):
        return "2.0.3 20260801"


class SequenceSettings(Shadowed):
    java_class = "org.micromanager.acquisition.SequenceSettings"
    api: ClassVar = no_arguments("save", "saveMode", "root", "prefix", "numFrames")

    def __init__(self, root, mode):
        self._root, self._mode = root, mode

    def save(self):
        return self._mode != "NONE"

    def saveMode(self):
        return Enum(self._mode)

    def root(self):
        return str(self._root)

    def prefix(self):
        return "cells"


class AcquisitionManager(Shadowed):
    java_class = "org.micromanager.acquisition.internal.DefaultAcquisitionManager"
    api: ClassVar = {"isAcquisitionRunning": [[]], "getAcquisitionSettings": [[]]}

    def __init__(self, control, mode):
        self._control, self._mode = control, mode

    def isAcquisitionRunning(self):
        return (self._control / "acquiring").exists()

    def getAcquisitionSettings(self):
        return SequenceSettings(self._control / "data", self._mode)


class Studio(Shadowed):
    java_class = "org.micromanager.internal.MMStudio$StudioImpl"
    interfaces = ("org.micromanager.Studio",)
    api: ClassVar = {"compat": [[]], "acquisitions": [[]]}

    def __init__(self, control, mode):
        self._control, self._mode = control, mode

    def compat(self):
        return Compatibility()

    def acquisitions(self):
        return AcquisitionManager(self._control, self._mode)


# ---------------------------------------------------------------- pycro-manager's Java classes


class RemoteImageProcessor(Shadowed):
    """Sends images to the other side's image_process_fn and takes back what it returns."""

    java_class = "org.micromanager.remote.RemoteImageProcessor"
    api: ClassVar = no_arguments("startPull", "startPush", "getPullPort", "getPushPort")

    def __init__(self):
        self._push = CONTEXT.socket(zmq.PUSH)
        self._push_port = self._push.bind_to_random_port("tcp://127.0.0.1")
        self._pull, self._pull_port = connected(zmq.PULL)
        self.returned = queue.Queue()

    def getPushPort(self):
        return self._push_port

    def getPullPort(self):
        return self._pull_port

    def startPush(self):
        pass

    def startPull(self):
        threading.Thread(target=self._take_back, daemon=True).start()

    def process(self, image):
        message = {"metadata": image.tags, "pixels": answer(image.pix)}
        send(self._push, message)

    def finish(self):
        send(self._push, {"special": "finished"})

    def _take_back(self):
        while True:
            message = receive(self._pull)
            self.returned.put(message)
            if "special" in message:
                return


class RemoteNotificationHandler(Shadowed):
    java_class = "org.micromanager.remote.RemoteNotificationHandler"
    api: ClassVar = no_arguments("getPort", "start", "notificationHandlingComplete")

    def __init__(self, acquisition):
        self._push = CONTEXT.socket(zmq.PUSH)
        self._port = self._push.bind_to_random_port("tcp://127.0.0.1")
        acquisition.notify = self._post

    def getPort(self):
        return self._port

    def start(self):
        pass

    def notificationHandlingComplete(self):
        pass

    def _post(self, kind, milestone, payload=None):
        send(self._push, {"type": kind, "milestone": milestone, "payload": payload})


class HashMap(Shadowed):
    java_class = "java.util.HashMap"
    interfaces = ("java.util.Map",)
    api: ClassVar = {"put": [["java.lang.Object", "java.lang.Object"]]}

    def __init__(self):
        self.items = {}

    def put(self, key, value):
        self.items[key] = value


class Storage(Shadowed):
    """Images in memory, as an acquisition without a directory keeps them."""

    java_class = "org.micromanager.ndtiffstorage.NDRAMStorage"
    api: ClassVar = {
        **no_arguments("getDiskLocation", "getSummaryMetadata", "isFinished"),
        "getImage": [["java.util.HashMap"]],
    }

    def __init__(self):
        self.images = {}

    def getDiskLocation(self):
        return None

    def getSummaryMetadata(self):
        return {"Prefix": "cells"}

    def isFinished(self):
        return False

    def getImage(self, axes):
        return self.images[frozenset(axes.items.items())]

    def save(self, image):
        axes = image.tags["Axes"]
        self.images[frozenset(axes.items())] = image
        return json.dumps(axes)

    def finish(self):
        pass


class StorageOnDisk(Storage):
    """Images in NDTiff files, whose index entries go out with the notifications."""

    java_class = "org.micromanager.ndtiffstorage.NDTiffStorage"

    def __init__(self, folder, name):
        self._dataset = NDTiffDataset(
            folder, summary_metadata=self.getSummaryMetadata(), name=name, writable=True
        )

    def getDiskLocation(self):
        return self._dataset.path

    def save(self, image):
        axes, tags = image.tags["Axes"], image.tags
        pixels = image.pix.reshape(tags["Height"], tags["Width"])
        self._dataset.put_image(axes, pixels, tags)
        return str(self._dataset.index[frozenset(axes.items())])

    def finish(self):
        self._dataset.finish()


class DataSink(Shadowed):
    java_class = "org.micromanager.remote.RemoteViewerStorageAdapter"
    api: ClassVar = no_arguments("getStorage", "isFinished", "getViewer")

    def __init__(self, storage):
        self.storage = storage
        self.finished = False

    def getStorage(self):
        return self.storage

    def isFinished(self):
        return self.finished

    def getViewer(self):
        return None


class RemoteAcquisition(Shadowed):
    """The engine: events in over a socket, one image each, through the processor, to the sink."""

    java_class = "org.micromanager.remote.RemoteAcquisition"
    interfaces = ("org.micromanager.acqj.api.AcquisitionAPI",)
    api: ClassVar = {
        **no_arguments(
            "getEventPort",
            "getDataSink",
            "isFinished",
            "areEventsFinished",
            "waitForCompletion",
            "checkForExceptions",
            "start",
            "abort",
        ),
        "blockUntilEventsFinished": [[DOUBLE]],
        "addImageProcessor": [["org.micromanager.remote.RemoteImageProcessor"]],
    }

    def __init__(self, core, storage):
        self._core = core
        self._pull, self._port = connected(zmq.PULL)
        self._sink = DataSink(storage)
        self._processor = None
        self._done = threading.Event()
        self._aborted = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def getEventPort(self):
        return self._port

    def getDataSink(self):
        return self._sink

    def isFinished(self):
        return self._done.is_set()

    areEventsFinished = isFinished

    def addImageProcessor(self, processor):
        self._processor = processor

    def blockUntilEventsFinished(self, seconds):
        self._done.wait(seconds)

    def waitForCompletion(self):
        self._done.wait()

    def checkForExceptions(self):
        pass

    def start(self):
        pass

    def abort(self):
        self._aborted.set()  # the engine's own thread ends it, as all its sockets are that one's

    def _run(self):
        while True:
            while not self._pull.poll(20):
                if self._aborted.is_set():
                    self._finish()
                    return
            events = receive(self._pull)["events"]
            if len(events) > 1 and all(set(event) == {"axes"} for event in events):
                self._acquire_burst(events)
                continue
            for event in events:
                if event.get("special") == "acquisition-end":
                    self._finish()
                    return
                if self._aborted.is_set():
                    break  # nothing moves any more
                self._acquire(event)

    def _acquire_burst(self, events):
        """Acquire events that ask for no change of hardware, as one hardware sequence."""
        core = self._core.core
        self._core.in_burst.set()  # live mode is the other thread's business
        core.startSequenceAcquisition(len(events), 0, True)
        for event in events:
            while core.getRemainingImageCount() == 0:
                time.sleep(0.001)
            if not self._aborted.is_set():
                self._hand_over(self._core.popNextTaggedImage(), event)
        core.stopSequenceAcquisition()
        self._core.in_burst.clear()

    def _acquire(self, event):
        core = self._core.core
        if "exposure" in event:
            core.setExposure(event["exposure"])
        if "config_group" in event:
            core.setConfig(*event["config_group"])
        if "z" in event:
            core.setPosition(event["z"])
        core.snapImage()
        self._hand_over(self._core.getTaggedImage(), event)

    def _hand_over(self, image, event):
        image.tags |= {"Axes": event["axes"], "Exposure": self._core.core.getExposure()}
        if self._processor is None:
            self._save(image)
        else:
            self._processor.process(image)
            self._save_returned()

    def _save_returned(self, *, to_the_end=False):
        returned = self._processor.returned
        while to_the_end or not returned.empty():
            message = returned.get()
            if "special" in message:
                return
            tags = message["metadata"]
            dtype = "uint8" if tags["PixelType"] == "GRAY8" else "uint16"
            self._save(TaggedImage(np.frombuffer(message["pixels"], dtype), tags))

    def _save(self, image):
        self.notify("image", "image_saved", self._sink.storage.save(image))

    def _finish(self):
        if self._processor is not None:
            self._processor.finish()
            self._save_returned(to_the_end=True)
        self.notify("global", "acq_events_finished")
        self._sink.storage.finish()
        self._sink.finished = True
        self.notify("image", "data_sink_finished")
        self._done.set()


class RemoteAcquisitionFactory(Shadowed):
    java_class = "org.micromanager.remote.RemoteAcquisitionFactory"
    api: ClassVar = {"createAcquisition": [[STRING, STRING, BOOLEAN, INT, BOOLEAN]]}

    def __init__(self, core):
        self._core = core

    def createAcquisition(self, folder, name, viewer, queue_size, debug):
        storage = Storage() if folder is None else StorageOnDisk(folder, name)
        return RemoteAcquisition(self._core, storage)


# --------------------------------------------------------------------------------- protocol


def connected(kind):
    """Return a socket connected to a free port, where the other side will bind."""
    probe = CONTEXT.socket(zmq.PUSH)
    port = probe.bind_to_random_port("tcp://127.0.0.1")
    probe.close(linger=0)
    socket = CONTEXT.socket(kind)
    socket.connect(f"tcp://127.0.0.1:{port}")
    return socket, port


def send(socket, message):
    """Send JSON with each array as two binary parts, in the text only its identity."""
    parts = []

    def leave(value):
        if isinstance(value, np.ndarray):
            identity = (len(parts) // 2 + 1) * 4099
            parts.extend([identity.to_bytes(4, sys.byteorder), value.tobytes()])
            return f"[S@{identity:x}"
        if isinstance(value, dict):
            return {key: leave(item) for key, item in value.items()}
        return value

    text = json.dumps(leave(message)).encode("iso-8859-1")
    socket.send_multipart([text, *parts])


def receive(socket):
    """Receive JSON and put binary parts back in place of their identities (`@number_size`)."""
    text, *parts = socket.recv_multipart()
    message = json.loads(text.decode("iso-8859-1"))
    arrays = dict(zip(parts[::2], parts[1::2], strict=True))
    for key, value in message.items():
        if isinstance(value, str) and value.startswith("@"):
            identity = int(value[1:].split("_")[0])
            message[key] = arrays[identity.to_bytes(4, sys.byteorder, signed=True)]
    return message


def answer(value):
    """Describe a result without a handle; None if it needs one."""
    if value is None:
        return {"type": "none"}
    if isinstance(value, str):
        return {"type": "string", "value": value}
    if isinstance(value, bool | int | float):
        return {"type": "primitive", "value": value}
    if isinstance(value, dict):
        return {"type": "object", "class": "JSONObject", "value": json.dumps(value)}
    if isinstance(value, np.ndarray):
        kind = {"uint8": "byte-array", "uint16": "short-array", "uint32": "int-array"}
        return {"type": kind[value.dtype.name], "value": value}
    return None


class Server:
    def __init__(self, version, core, studio):
        self._version = version
        self._made = {
            "mmcorej.CMMCore": lambda: core,
            "org.micromanager.Studio": lambda: studio,
            "org.micromanager.remote.RemoteAcquisitionFactory": RemoteAcquisitionFactory,
            "org.micromanager.remote.RemoteImageProcessor": RemoteImageProcessor,
            "org.micromanager.remote.RemoteNotificationHandler": RemoteNotificationHandler,
            "java.util.HashMap": HashMap,
        }
        self._arguments = {
            "org.micromanager.remote.RemoteAcquisitionFactory": ["mmcorej.CMMCore"],
            "org.micromanager.remote.RemoteNotificationHandler": [
                "org.micromanager.acqj.api.AcquisitionAPI"
            ],
        }
        self._objects = {}
        self._poller = zmq.Poller()
        self._ports = {}
        self.port = self._listen()

    def leave_out(self, path):
        del self._made[path]

    def _listen(self):
        socket = CONTEXT.socket(zmq.REP)
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        self._ports[socket] = port
        self._poller.register(socket, zmq.POLLIN)
        return port

    def serve(self, stopped):
        while not stopped.is_set():
            for socket, _ in self._poller.poll(100):
                request = receive(socket)
                try:
                    reply = self._reply(request, self._ports[socket])
                except Exception as error:
                    reply = {"type": "exception", "value": f"java.lang.Exception: {error}\n"}
                send(socket, reply)

    def _reply(self, request, port):
        command = request["command"]
        if command == "connect":
            return {"type": "none", "version": self._version}
        if command == "get-constructors":
            path = request["classpath"]
            if path not in self._made:
                raise LookupError(f"Class not found on any classloaders: {path}")
            api = [{"name": path, "arguments": self._arguments.get(path, [])}]
            return {"type": "none", "api": api}
        if command == "constructor":
            made = self._made[request["classpath"]](*map(self._argument, request["arguments"]))
            return self._describe(made, self._listen() if request.get("new-port") else port)
        if command == "destructor":
            self._objects.pop(request["hash-code"], None)
            return {"type": "none"}
        target = self._objects[request["hash-code"]]
        if command == "get-field":
            return self._describe(getattr(target, request["name"]), port)
        if command == "run-method":
            arguments = map(self._argument, request["arguments"])
            return self._describe(getattr(target, request["name"])(*arguments), port)
        raise ValueError("Unknown Command")

    def _argument(self, value):
        return self._objects[value["hash-code"]] if isinstance(value, dict) else value

    def _describe(self, value, port):
        if (simple := answer(value)) is not None:
            return simple
        handle = uuid.uuid4().hex
        self._objects[handle] = value
        return {
            "type": "unserialized-object",
            "class": value.java_class,
            "hash-code": handle,
            "port": port,
            "interfaces": [value.java_class, *value.interfaces, "java.lang.Object"],
            "fields": list(value.fields),
            "api": [
                {"name": name, "return-type": "java.lang.Object", "arguments": arguments}
                for name, overloads in value.api.items()
                for arguments in overloads
            ],
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("control", type=Path)
    parser.add_argument("--version", default="5.1.0")
    parser.add_argument("--save-mode", default="ND_TIFF")
    parser.add_argument("--no-core", action="store_true")
    options = parser.parse_args()
    core = CMMCore()
    server = Server(options.version, core, Studio(options.control, options.save_mode))
    if options.no_core:
        server.leave_out("mmcorej.CMMCore")
    print(server.port, flush=True)
    stopped = threading.Event()

    def obey():
        """Do what the control folder says, until standard input ends."""
        while not stopped.wait(0.02):
            wanted = (options.control / "live").exists()
            if not core.in_burst.is_set() and wanted != core.isSequenceRunning():
                if wanted:
                    core.startContinuousSequenceAcquisition(0)
                else:
                    core.stopSequenceAcquisition()

    threading.Thread(target=obey, daemon=True).start()
    threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
    server.serve(stopped)


if __name__ == "__main__":
    main()
