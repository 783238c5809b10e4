"""Speed against the limit and the peers, and the acceptance figures; each script prints Markdown.

Run them from the repository's root: ``python -m bench.decode``, ``python -m bench.generate``,
``python -m bench.prepare``, ``python -m bench.recordings``. Figures of speed are worth something
on an otherwise idle machine only; each table says how busy the machine was.
"""
