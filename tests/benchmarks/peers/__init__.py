"""The same set of calls on this package and its peers, by turns: `python tests/benchmarks/peers`.

N calls of add(i, i) whose results are kept, and one callback with the list of all of them: from the
call that submits to the callback's start, when it has the results. Where a peer has no such set,
its users count by hand, and so do we for it. How each peer is set up is told in its module.
"""
