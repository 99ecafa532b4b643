"""What a run costs, counted from shapes.

devices.py   devices by name, and the share of their peak that is reached
stages.py    FLOPs, bytes and seconds of every stage; hours, energy and money of a run
forecast.py  a whole run beside one that stays in its first stage, and beside the same freezing with pixels
fit.py       micro-batch, recomputation and target fraction that fit into so much memory
words.py     figures as people read them
"""
