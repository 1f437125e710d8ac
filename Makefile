# make demo: the main job on a generated world. make test: everything checked. make test-full: the long ones. All make .venv first.
PYTHON ?= python3
BIN := .venv/bin
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1

.PHONY: demo test test-full test-outside install docs docs-readme pictures class measure-lessons execute clean

install: .venv/installed

.venv/installed: constraints.txt settings.ini setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "promax_nb needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip  # a third faster than that of Python 3.11
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/promax demo

# exported modules in sync and notebooks clean, lint; every notebook runs, then the tests, those in a browser beside both
test: export OMP_WAIT_POLICY ?= passive
test: install
	$(BIN)/python tests/frame.py
	$(BIN)/ruff check .
	$(BIN)/python tests/run.py

# what takes too long for every change: LettinGo at full size, three seeds (about 15 minutes); the demo and the README's session from the wheel;
# the story (its functions have their tests in test_figures and test_project); a Ray cluster of two processes, which is killed in parts
test-full: install
	PROMAX_FULL=1 $(BIN)/python -m pytest -q tests/test_align.py tests/test_ask.py tests/test_benchmarks.py tests/test_package.py -k full
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]'
	PROMAX_FULL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_cluster.py
	PROMAX_FULL=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/test_lessons.py tests/browser/test_lessons.py tests/browser/test_site.py
	OMP_NUM_THREADS=1 $(BIN)/nbdev_test --path nbs/story.ipynb

# what RecTools, LensKit and RecBole say of the same lists, each in an environment of its own (.cache/outside, Python 3.11): kept in
# tests/outside/*.json, which `make test` holds our numbers to
test-outside: install
	$(BIN)/python tests/outside.py

# the site in _docs: by Quarto where it is installed, else by Sphinx; pages of the latter need no network
docs: install
	$(BIN)/python docs/make_site.py

# the pictures of the front page and what the three questions are answered, from the demo
pictures: install
	$(BIN)/python docs/make_pictures.py
	$(BIN)/python tests/frame.py --write-readme

# README.md from nbs/index.ipynb
docs-readme: install
	$(BIN)/python tests/frame.py --write-readme

# every lesson twice, for a class: lessons-for-class/student without answers, lessons-for-class/teacher with them
class: install
	$(BIN)/python docs/class_copies.py lessons-for-class

# time and memory of every lesson, into its badge
measure-lessons: install
	OMP_NUM_THREADS=1 $(BIN)/python docs/measure_lessons.py --measure nbs/lessons --badges nbs/lessons

# run every notebook and keep its outputs (text and still pictures, no widget state)
execute: install
	cd nbs && for n in *.ipynb lessons/*.ipynb; do ../$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.store_widget_state=False $$n || exit 1; done
	$(BIN)/python tests/frame.py --tidy
	$(BIN)/nbdev_clean

clean:
	rm -rf .venv demo-run lettingo-run build dist *.egg-info _docs _proc .cache/docs
