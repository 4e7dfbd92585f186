"""The live page: what the service knows, as one web page fed by Server-Sent Events.

`views` are the documents the page reads, `feed` keeps the newest of each and hands changes out,
`access` says who may look, `routes` is the HTTP side, ``static/`` the page itself. Where the facts
come from (database, ingest) is `source`'s business; the page changes nothing in the fleet.
"""
