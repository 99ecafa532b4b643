"""Pictures and pages: what a run folder holds, made visible.

page.py      the page: its sections in order, and the head
history.py   metrics and events read back: stages, series, how the run ended
charts.py    curves over steps (SVG)
pictures.py  clips and tokens as pixels: masked input, reconstruction, PCA colours (PNG)
tables.py    the sections made of words and numbers: stages and cost, events
views.py     the sections made of pictures: previews, features by depth
analysis.py  the page that compares encoders by depth; its charts are drawn by templates/analysis.js
neighbours.py  nearest videos of a few videos, as thumbnails
markup.py    HTML that is escaped by default, and the page's style
"""
