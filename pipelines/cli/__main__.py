"""python -m pipelines.cli"""

from .main import main

main()
