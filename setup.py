"""Packaging of recsys: what it needs, and why each package is there."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIRED = [
    "torch>=2.6,<3",  # the autoencoders, and every dense product
    "numpy>=1.26,<3",
    "scipy>=1.13,<2",  # sparse user-item matrices
    "pandas>=2.2.3,<4",  # frames in, frames out
    "pyarrow>=17",  # reading CSV and Parquet in streams, ids in their own type
    "fsspec>=2024.6",  # addresses of object stores; torch needs it too
    "safetensors>=0.5,<1",  # weights on disk without pickle
    "click>=8.1.7,<9",  # the command line
    "tqdm>=4.66,<5",  # progress bars
    "threadpoolctl>=3.5,<4",  # implicit needs BLAS held to one thread
]

EXTRAS = {
    "baselines": ["implicit>=0.7.3,<0.8"],  # matrix factorization to compare with
    "mlflow": ["mlflow>=3.10,<4"],  # tracking; full, not skinny: SQLite store and UI
    "plots": ["matplotlib>=3.9,<4"],  # training curves, leaderboards
    "index": ["faiss-cpu>=1.11,<2"],  # nearest neighbors among very many vectors; wheels for all Pythons
    "map": ["scikit-learn>=1.5,<2"],  # k-means and t-SNE of maps
    "features": ["scikit-learn>=1.5,<2"],  # TF-IDF of texts that describe items
    "report": ["jinja2>=3.1,<4"],  # report.html of a comparison
    "tune": ["optuna>=4,<6"],  # the search of settings, resumable
    "ray": ["ray>=2.50,<3"],  # scoring on a cluster; the core alone, actors and tasks
    "serve": [  # the HTTP service; MLflow brings the first two
        "fastapi>=0.115",
        "uvicorn>=0.30",
        "httptools>=0.6",  # uvicorn takes both where they are there: a fifth to a third less time a request
        "uvloop>=0.21; sys_platform != 'win32'",
        "prometheus-client>=0.20",  # what /metrics shows
    ],
    "ray-serve": ["ray[serve]>=2.50,<3"],  # the HTTP service on a cluster
    "object-stores": ["s3fs>=2024.6", "gcsfs>=2024.6"],  # fsspec's s3:// and gs://; others (adlfs, ...) work as well
    "docs": [
        "mkdocs-material>=9.6,<10",  # the site: pages, search without a server
        "mkdocstrings[python]>=0.30,<2",  # the API reference, from docstrings
        "latex2mathml>=3.77,<4",  # formulas that browsers draw without scripts
    ],
    "notebooks": ["ipykernel>=6.29", "nbmake>=1.5.4", "scikit-learn>=1.5,<2"],  # scikit-learn: digits, PCA
    "test": [
        "pytest>=8",
        "pytest-timeout>=2.3",  # a hanging test is a failing test
        "pytest-xdist>=3.6",  # two cores, half the time
        "pytest-cov>=6",  # make test prints which lines no test runs
        "hypothesis>=6.100",  # properties of reading, splits and top-n
        "s3fs>=2024.6",  # what is written to an object store is tested with
        "moto[s3]>=5,<6",  # a real S3 server on this machine,
        "flask-cors>=5",  # which needs Flask and this
        "ir-measures>=0.4.2,<0.5",  # independent metrics to check ours against
    ],
    "lint": ["ruff>=0.9", "mypy>=1.14", "pandas-stubs", "scipy-stubs", "types-tqdm"],
}
EXTRAS["all"] = [
    package
    for extra in ("baselines", "index", "map", "mlflow", "plots", "report", "serve", "tune")
    for package in EXTRAS[extra]
]
EXTRAS["dev"] = (
    EXTRAS["all"] + EXTRAS["ray-serve"] + EXTRAS["docs"] + EXTRAS["notebooks"] + EXTRAS["test"] + EXTRAS["lint"]
)

# The folder `pipelines` is installed as `recsys_pipelines`: other projects install a top-level package `pipelines`.
# The sample goes with it, so that `recsys demo` runs from an installed package too.
PACKAGES = {
    "recsys_pipelines": "pipelines",
    "recsys_pipelines.cli": "pipelines/cli",
    "recsys_pipelines.sample": "data/sample",
}

setup(
    name="recsys-autoencoders",  # the name `recsys` belongs to another project on the public index
    version="0.2.0.dev0",
    description="Autoencoder recommender systems: from a ratings CSV to recommendations for every user",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    # No Homepage and Source here: this repository has no public address yet.
    project_urls={"Paper": "https://arxiv.org/abs/1802.05814"},  # Mult-VAE, the model it began with
    keywords=["recommender systems", "collaborative filtering", "autoencoder", "variational autoencoder", "pytorch"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["recsys", "recsys.*"]), *PACKAGES],
    package_dir=PACKAGES,
    package_data={
        "recsys": ["py.typed"],
        "recsys.system": ["constants.json"],
        "recsys.reporting": ["templates/*.html"],
        "recsys.serving": ["page.html"],
        "recsys_pipelines": ["py.typed"],
        "recsys_pipelines.sample": ["*.csv", "*.toml"],
    },
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["recsys = recsys_pipelines.cli.main:main"]},
)
