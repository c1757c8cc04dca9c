"""A facility engineer's pycro-manager script with quietscope's hook in it.

    python examples/live_in_your_script.py models/gfp runs/monday

runs it on Micro-Manager's demo camera. At a microscope, leave `open_microscope` out and start
Micro-Manager as your script always did.
"""

import sys

from pycromanager import Acquisition, multi_d_acquisition_events

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.microscope.core import open_microscope

model, output = sys.argv[1:3]

with (
    open_microscope(),
    LiveDenoiser(model=model, output=output, preview=True) as live,
    Acquisition(image_process_fn=live.image_process_fn) as acquisition,
):
    acquisition.acquire(multi_d_acquisition_events(num_time_points=50))

print(f"{live.report['frames_denoised']} of {live.report['frames_delivered']} frames denoised")
