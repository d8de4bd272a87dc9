# One command each. `make help` lists them; variables are given behind: make run USERS=20000 DAYS=3

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV ?= .venv
# What `make run` runs on; see `make help`.
USERS = 5000
DATE =
DAYS = 1
SOURCE =
DATA =
LAKE =
EXIT =
FAULTS ?= 1
METHOD =
API_PORT ?= 8080
REHEARSAL_PORT ?= 8085
# Of `make test`: processes that take the files of tests side by side. Named tests run in this one, as a debugger needs.
WORKERS = $(if $(TESTS),0,2)

UV_VERSION := 0.13.9
# Python packages as they were on the day after Airflow 3.3.2's release; see requirements.in.
AS_OF := 2026-09-18T00:00:00Z

python := $(VENV)/bin/python
stack := PYTHONPATH=.:plugins $(python) -m ryml_airflow.stack
compile := $(VENV)/bin/uv pip compile --quiet --python-version 3.11 --exclude-newer $(AS_OF) --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock'
# uv compiles no bytecode by default, and without it each of Airflow's processes starts in twice the time.
pip_install := $(VENV)/bin/uv pip install --quiet --python $(python) --compile-bytecode --require-hashes

# Set in many container images; every process would compile Airflow anew.
unexport PYTHONDONTWRITEBYTECODE
# Another environment's packages must not mix with this one's.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

.PHONY: help run rehearse preview stop install install-dev test scoreboard bench-export bench-train bench-quality bench-recommend bench-push bench-cold check docs golden expectations fix lock clean venv

help: ## list the commands and variables
	@echo 'Commands:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Variables of make run (and what they are by default):'
	@echo '  USERS=$(USERS)            size of the demo shop'
	@echo '  DATE=                 first date, YYYY-MM-DD (the source says; the demo: 2026-11-04)'
	@echo '  DAYS=$(DAYS)                how many dates, one after the other'
	@echo '  SOURCE=               settings file of the source (docs/examples/demo_shop.toml)'
	@echo '  DATA=                 where the data is (what the settings file says)'
	@echo '  LAKE=                 the lake: a folder or s3://bucket/prefix (a folder under .airflow/)'
	@echo '  EXIT=                 1: leave after the batch, with status 0 if it succeeded'
	@echo '  API_PORT=$(API_PORT)         Airflow: user interface and API'
	@echo '  REHEARSAL_PORT=$(REHEARSAL_PORT)   rehearsal provider: API and mailbox'
	@echo '  METHOD=               how all campaigns are pushed: contacts, csv_import or mail_send (as their files say)'
	@echo 'Of make rehearse: FAULTS=$(FAULTS), the seed of what goes wrong. Of make preview: USER, a user id, and OUT, a path without ending (preview).'
	@echo 'Of make test: TESTS, files or options of pytest, and WORKERS, processes side by side (2; with TESTS 0: this one).'
	@echo 'Everywhere: VENV=$(VENV), the virtual environment.'

run: install ## the whole night on this machine: demo shop, Airflow, recommendations, one rehearsed send
	@$(stack) up --users '$(USERS)' --date '$(DATE)' --days '$(DAYS)' --source '$(SOURCE)' --data '$(DATA)' --lake '$(LAKE)' \
		--api-port '$(API_PORT)' --rehearsal-port '$(REHEARSAL_PORT)' --method '$(METHOD)' $(if $(filter-out 0,$(EXIT)),--exit)

rehearse: install ## a whole night against a provider that goes wrong as FAULTS decides, e.g. FAULTS=7
	@$(stack) up --users '$(USERS)' --date '$(DATE)' --days '$(DAYS)' --source '$(SOURCE)' --data '$(DATA)' --lake '$(LAKE)' \
		--api-port '$(API_PORT)' --rehearsal-port '$(REHEARSAL_PORT)' --method '$(METHOD)' --faults '$(FAULTS)' --exit

preview: install ## one user's mail as a file, e.g. USER=42: make preview USER=42 DATE=2026-11-04 (after make run)
	@$(stack) preview --user '$(USER)' --users '$(USERS)' --date '$(DATE)' --source '$(SOURCE)' --lake '$(LAKE)' --out '$(or $(OUT),preview)'

stop: ## stop what runs, or what a lost terminal left
	@if [ -x $(python) ]; then $(stack) down; else echo 'Nothing was running: there is no $(VENV).'; fi

# The stamp holds the lock's checksum, so that a checkout which only touches the file installs nothing.
install: ## make the virtual environment and install what is needed to run (nothing to do: no time)
	@if [ "$$(cat $(VENV)/.runtime 2>/dev/null)" != "$$(cksum < requirements.txt)" ]; then \
		$(MAKE) venv; \
		echo 'Installing 1.4 GB of packages into $(VENV) (about a minute) ...'; \
		$(pip_install) -r requirements.txt; \
		cksum < requirements.txt > $(VENV)/.runtime; \
		rm -f $(VENV)/share/ryml/spark-classes.*; \
	fi
	@if [ ! -e $(VENV)/share/ryml/spark-classes.bytes ]; then \
		echo 'Keeping the classes that Spark loads, so that it starts faster (half a minute) ...'; \
		$(python) -m jobs.spark_classes || echo 'They could not be kept: Spark works without, and starts slower.'; \
	fi

install-dev: install ## the same and what tests and checks need
	@if [ "$$(cat $(VENV)/.dev 2>/dev/null)" != "$$(cat requirements.txt tests/requirements.txt | cksum)" ]; then \
		echo 'Installing what tests and checks need ...'; \
		$(pip_install) -r tests/requirements.txt; \
		cat requirements.txt tests/requirements.txt | cksum > $(VENV)/.dev; \
	fi

# Says everything that is missing before anything is downloaded.
venv:
	@found=; \
	for candidate in python3.11 python3; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then \
			found=$$candidate; break; \
		fi; \
	done; \
	missing=; \
	if [ -z "$$found" ]; then \
		missing+=$$'There is no Python 3.11 on PATH; expected it, because requirements.txt was resolved for it. Install python3.11 and python3.11-venv.\n\n'; \
	elif ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
		missing+=$$'Python 3.11 can not make virtual environments; expected its venv module. Debian, Ubuntu: apt-get install python3.11-venv\n\n'; \
	elif ! "$$found" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; then \
		missing+=$$'Python 3.11 is here without Python.h; expected it, because the package lightfm is built here. Debian, Ubuntu: apt-get install python3.11-dev\n\n'; \
	fi; \
	if ! command -v "$${CC:-cc}" >/dev/null && ! command -v gcc >/dev/null; then \
		missing+=$$'There is no C compiler; expected gcc, because the package lightfm is built here. Debian, Ubuntu: apt-get install gcc; macOS: xcode-select --install\n\n'; \
	fi; \
	if [ -z "$${JAVA_HOME:-}" ] && ! command -v java >/dev/null; then \
		missing+=$$'There is no Java; expected version 17 or newer, because Spark runs on it. Debian, Ubuntu: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17\n\n'; \
	fi; \
	if [ -n "$$missing" ]; then printf '%s' "$$missing" >&2; exit 2; fi; \
	if ! $(python) -c 'import pip' 2>/dev/null; then \
		echo "Making $(VENV) with $$found ..."; \
		"$$found" -m venv --clear $(VENV); \
	fi; \
	if [ "$$($(VENV)/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != $(UV_VERSION) ]; then \
		$(python) -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); \
	fi

# A file stays in one process: what its tests share is made once. In the order of their names, the long ones come early.
test: install-dev ## run the tests, files side by side; some of them: make test TESTS=tests/lake
	@$(python) -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

scoreboard: install-dev ## the tests that measure a figure, in full size, and the figures
	@$(python) -m pytest -q -m scoreboard $(TESTS)

bench-export: install-dev ## rows per second and memory of the export beside pandas and Spark, in one run
	@$(python) bench/export_rows.py $(ARGS)

bench-train: install-dev ## seconds and memory of training beside implicit and Spark SQL: 40 million interactions
	@$(python) bench/train_correlations.py $(ARGS)

bench-quality: install-dev ## recall and ndcg of ryml beside the usual libraries: make bench-quality DATA=DIR OUT=DIR
	@OPENBLAS_NUM_THREADS=$$(nproc) $(python) -m bench.quality --data '$(DATA)' --out '$(OUT)' $(ARGS)

# USERS is a small shop's by default; what is measured here is a large one's.
bench-recommend: install-dev ## fold and recommend for USERS users (1,000,000), beside implicit and Spark ALS
	@PYTHONPATH=. $(python) -m bench.recommend --users $(if $(filter command line,$(origin USERS)),$(USERS),1000000) $(ARGS)

bench-push: install-dev ## users per second, requests, bytes, CPU and memory of the push, beside a plain loop over the SDK; and a push that is killed
	@PYTHONPATH=. $(python) -m bench.push --users $(if $(filter command line,$(origin USERS)),$(USERS),1000000) $(ARGS)
	@PYTHONPATH=. $(python) -m bench.push_resume --users $(if $(filter command line,$(origin USERS)),$(USERS),1000000)

bench-cold: install-dev ## items and users without history: the hybrid model beside popularity, on real data (DATA=folder)
	@$(python) bench/cold_start.py $(if $(DATA),--data '$(DATA)') $(ARGS)

check: install-dev ## lint, formatting and types; changes nothing
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

docs: install-dev ## write the documents' generated tables anew
	@$(python) docs/generate_tables.py

golden: install-dev ## write the golden files of rendered tasks anew; look at the diff
	@$(python) -m pytest -q tests/dags --golden

fix: install-dev ## put right what ruff can put right
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

expectations: install ## write schemas/expectations/*.json from the data contract (schemas/contracts.py)
	@$(python) -m schemas.write_expectations

lock: venv ## resolve requirements.in and tests/requirements.in anew
	@$(compile) requirements.in -o requirements.txt
	@$(compile) tests/requirements.in -o tests/requirements.txt

clean: stop ## remove what runs have left: Airflow's database, logs, secrets, demo shops, lakes, mailboxes
	@if [ -d .airflow ]; then du -sh .airflow/* | sed 's/^/removing /'; rm -rf .airflow; else echo 'There is no .airflow.'; fi
