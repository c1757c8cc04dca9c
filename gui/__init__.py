"""The whole job in a window: connect, calibrate, record, train, live, and what happens overnight.

Above everything, and without logic of its own: what is measured, recorded, trained and judged is
done by the commands, which run as programs of their own. `steps/` knows what each step is waiting
for and says it in words, without Qt; `window/` shows it.
"""
