# Needs Python 3.11 or newer and nothing else: every target sets up what it uses, once.
.PHONY: demo test check bench setup

demo: setup ; @.venv/bin/guard demo
test: check ; @.venv/bin/pytest
check: setup ; @deploy/ci/check
bench: ; @deploy/ci/install dev peers && .venv/bin/python -W ignore -m tests.bench.graph_cost --pack models/gtsrb && .venv/bin/python -m tests.bench.serving
setup: ; @deploy/ci/install dev
