"""Choosing a variant under constraints: ``--budget "latency<30ms,size<2MB,top1>=0.97"``.

Pure functions of values: `terms` reads the budget, `candidate` says what is known of a variant and whether it
meets a term, `front` finds what no other beats and picks one, `weights` bounds a size before anything is
built, `order` says what is tried in which order. Building and measuring is `edgekit_converters.engine`'s.
"""
