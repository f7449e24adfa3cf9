"""
The array twin of the core: the same decisions for many windows and many policies at once.

Start with `series` (what is decided), `grid` (by which policies) and `outcomes` (what comes out);
`replay.sweeping` is the way in. Nothing of a live run imports this package, so that none pays for
NumPy, which everything here needs, or for numba, which `latch`, `stepping` and `money_sums` use
where it is installed.
"""
