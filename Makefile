# make train   from nothing to a measured model in runs/imdb-embedded (installs into .venv first)
# make setup   .venv with all that the tests and checks need
# make test    what every change must pass, offline
# make check   format, lint, types, reference page, and every claim in results/
# make format  rewrites the code as `make check` wants it
# make docs    the reference page of all settings, and the site of docs/ in site/
PYTHON ?= python3
TORCH_ARGS ?=
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: setup train test test-slow check check-format check-lint check-types check-claims format bench-main bench-first-answer bench-qlora bench-kill-resume bench-notebook bench-speed bench-base bench-inference bench-score-memory bench-audit bench-curve bench-imdb bench-tasks bench-serving docs clean

setup: $(VENV)/.check

train: $(VENV)/.embedded
	$(BIN)/distilora train recipes/imdb-embedded.yaml --overwrite $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile $(ARGS)

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -m slow $(ARGS)

# .pre-commit-config.yaml calls the same four
check: check-format check-lint check-types check-claims

check-format: $(VENV)/.check
	$(BIN)/ruff format --check src tests bench

check-lint: $(VENV)/.check
	$(BIN)/ruff check src tests bench

check-types: $(VENV)/.check
	$(BIN)/mypy

# and the reference page
check-claims: $(VENV)/.check
	$(BIN)/python -m bench.harness.check

format: $(VENV)/.check
	$(BIN)/ruff check --fix src tests bench
	$(BIN)/ruff format src tests bench

# Figures of README: results/NAME.json, from cells in results/NAME/cells that a restart skips. Leave the machine alone.
bench-main: $(VENV)/.test
	$(BIN)/python -m bench.main $(ARGS)

bench-first-answer: $(VENV)/.test
	$(BIN)/python -m bench.first_answer $(ARGS)

bench-qlora: $(VENV)/.test
	$(BIN)/python -m bench.qlora $(ARGS)

bench-kill-resume: $(VENV)/.test
	$(BIN)/python -m bench.kill_resume $(ARGS)

# and docs/DistBert_QLoRA.html
bench-notebook: $(VENV)/.test
	$(BIN)/python -m bench.notebook $(ARGS)

# hours where the curves of the contenders are not there yet; also results/speed.md and .png
bench-speed: $(VENV)/.test
	$(BIN)/python -m bench.speed $(ARGS)

# DistilBERT-base's size: three quarters of an hour
bench-base: $(VENV)/.test
	$(BIN)/python -m bench.base $(ARGS)

# half an hour, and 10 minutes of training without INFERENCE_RUN; also results/inference.md and .png
bench-inference: $(VENV)/.test
	$(BIN)/python -m bench.inference $(ARGS)

# a million rows: minutes
bench-score-memory: $(VENV)/.test
	$(BIN)/python -m bench.score_memory $(ARGS)

# minutes
bench-audit: $(VENV)/.test
	$(BIN)/python -m bench.audit $(ARGS)

# about an hour; hours with SetFit, which is measured where CURVE_SETFIT names the Python of its environment
bench-curve: $(VENV)/.test
	$(BIN)/python -m bench.curve $(ARGS)

# three seeds of an hour each; IMDB_DATA names a folder with splits train, test and unsupervised, else the Hub's
bench-imdb: $(VENV)/.test
	$(BIN)/python -m bench.imdb $(ARGS)

# TASKS_DATA names a folder with imdb, sst5, subjqa, xquad_en and scitldr, as parquet files
bench-tasks: $(VENV)/.test
	$(BIN)/python -m bench.tasks $(ARGS)

# over an hour, and 10 minutes of training and exports without SERVING_RUN; SERVING_LITSERVE, SERVING_INFINITY and
# SERVING_SCHEMATHESIS name Pythons with those (bench/serving/peers/), else they are reported as missing; also
# results/serving.md and .png
bench-serving: $(VENV)/.test
	$(BIN)/python -m bench.serving $(ARGS)

# the reference page from the config classes, then the site in site/, warnings as errors
docs: $(VENV)/.docs
	$(BIN)/python -m distilora.config.reference > docs/configuration.md
	$(BIN)/mkdocs build --strict $(ARGS)

# torch first and alone, so that TORCH_ARGS can name where its build comes from
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch $(TORCH_ARGS)
	touch $@

$(VENV)/.embedded: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[embedded]'
	touch $@

$(VENV)/.test: $(VENV)/.embedded pyproject.toml
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.check: $(VENV)/.test pyproject.toml
	$(PIP) -e '.[check]'
	touch $@

$(VENV)/.docs: $(VENV)/.embedded pyproject.toml
	$(PIP) -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
