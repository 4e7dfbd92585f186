"""`edgekit demo`: the whole line on this machine, driven through the public command lines only.

`processes` starts children and leaves none behind, `traffic` plays the field, `steps` are the acts,
`claims` what is asserted at the end, `story` how it is told. Nothing here is used by the service.
"""
