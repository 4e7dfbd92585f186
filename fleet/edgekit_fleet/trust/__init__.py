"""Who may say what: signing keys, the TUF repository, and the director's signatures.

Four roles are TUF's (root, targets, snapshot, timestamp). The fifth key, the director's, signs what each
single device shall run; devices learn its public half from the signed TUF target ``director.json``.
"""
