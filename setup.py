"""Package metadata comes from settings.ini, the one place that states name, version and requirements."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here / 'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']


def wanted(*names):
    """The requirements of these lists of settings.ini together."""
    return [line for name in names for line in cfg[f'{name}_requirements'].split()]


extras = {
    'align': wanted('align'),  # SFT and DPO: align(), lettingo()
    'serve': wanted('serve'),  # transformers serve: a local writer or judge behind chat()
    'ray': wanted('ray'),  # engine='ray': writing and reading on a cluster; vLLM itself is for machines with cards
    'all': wanted('align', 'serve', 'all'),  # whatever a user may want: both, JupyterLab, still pictures
    'dev': wanted('align', 'serve', 'all', 'dev'),  # make test, make docs
}

# pages that show the text elsewhere have no docs/ beside it
pictures = 'https://raw.githubusercontent.com/promax-nb/promax_nb/main/docs/pictures/'
readme = (here / 'README.md').read_text(encoding='utf-8').replace('docs/pictures/', pictures)

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=readme,
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license_expression='Apache-2.0',
    license_files=['LICENSE'],
    keywords=cfg['keywords'].split(),
    python_requires=f">={cfg['min_python']}",
    packages=[
        *find_packages(include=['promax_nb', 'promax_nb.*']),
        'promax_nb.lettingo.tiny_writer',
    ],  # a folder of weights, without modules
    package_data={
        'promax_nb': ['py.typed'],
        'promax_nb.views': ['*.js', '*.css'],
        'promax_nb.lettingo.tiny_writer': ['*'],
    },
    install_requires=cfg['requirements'].split(),
    extras_require=extras,
    entry_points={
        'console_scripts': cfg['console_scripts'].split('\n'),
        'nbdev': [f"{cfg['lib_name']}={cfg['lib_name']}._modidx:d"],
    },
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Intended Audience :: Education',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False,
)
