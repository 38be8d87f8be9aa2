"""Signatures of packs: the OpenSSF model-signing format (OMS), checked with `cryptography` alone.

Read `bundle` first: what is signed. `keys` signs, `trust` says whose signature counts.
"""
