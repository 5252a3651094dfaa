"""What conda calls a package, and what the Python index calls it.

Only what stands here is mapped: an unknown name may be a library that is no Python package, or
belong to somebody else on the index. In `pip:` sections every name of the index may stand.
"""

# Under the same name in both.
_SAME = """
absl-py accelerate aiohttp albumentations altair astropy astunparse attrs beautifulsoup4 bokeh
boto3 botocore bottleneck catboost category_encoders certifi cffi charset-normalizer click
cloudpickle colorama contourpy cryptography cvxpy cycler cython dask datasets decorator dill
einops evaluate faiss-cpu faker filelock flake8 flask flatbuffers flax fonttools fsspec ftfy
future gast gensim gmpy2 grpcio h5py huggingface_hub hydra-core idna imagecodecs imageio
imbalanced-learn imgaug importlib-metadata importlib_metadata importlib_resources ipython jax
jaxlib jinja2 joblib jsonschema keras kiwisolver lightgbm lightning llvmlite loguru lxml markdown
markupsafe matplotlib mpmath multiprocess mypy networkx nibabel nltk numba numexpr numpy omegaconf
opacus openpyxl opt_einsum optax optuna orjson packaging pandas patsy pillow plotly polars
prettytable prophet protobuf psutil pyarrow pydantic pydantic-core pydicom pygments pyjwt pynvml
pyparsing pysocks pytest python-dateutil python-dotenv pytorch-lightning pytz pywavelets pyyaml
pyzmq rasterio regex requests rich ruamel.yaml sacrebleu safetensors scikit-image scikit-learn
scikit-optimize scipy seaborn sentence-transformers sentencepiece setuptools shap simplejson six
skops smart_open spacy sqlalchemy statsmodels sympy tabulate tenacity tensorboard tensorboardx
tensorflow tensorflow-cpu tensorflow-datasets tensorflow-estimator tensorflow-probability
termcolor threadpoolctl timm tokenizers toml tomli torchaudio torchmetrics torchtext torchvision
tornado tqdm transformers typer typing-extensions typing_extensions tzdata urllib3 validators
werkzeug wheel wrapt xarray xgboost xlrd xxhash yarl zarr zipp zstandard
"""

_OTHER = {
    "dask-core": "dask",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "numpy-base": "numpy",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "py-xgboost-cpu": "xgboost",
    "pyarrow-core": "pyarrow",
    "pytables": "tables",
    "python-flatbuffers": "flatbuffers",
    "python-graphviz": "graphviz",
    "python-tzdata": "tzdata",
    "python-xxhash": "xxhash",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "ruamel_yaml": "ruamel.yaml",
    "seaborn-base": "seaborn",
    "tensorflow-base": "tensorflow",
    "tensorflow-gpu": "tensorflow",
    "torchvision-cpu": "torchvision",
}

PIP_NAMES = {name: name for name in _SAME.split()} | _OTHER

# Known to be no Python packages; what the wheels of those bring along themselves.
NOT_PYTHON = {
    name: why
    for names, why in {
        "cudatoolkit cuda cuda-toolkit cuda-runtime cuda-version pytorch-cuda cudnn nccl "
        "pytorch-mutex": "wheels bring the CUDA that they need; leave it out",
        "mkl mkl-service mkl_fft mkl_random blas libblas libcblas liblapack openblas libopenblas "
        "intel-openmp llvm-openmp libgomp _openmp_mutex tbb": "NumPy's and SciPy's wheels bring "
        "their own linear algebra; leave it out",
        "_libgcc_mutex libgcc-ng libgcc libstdcxx-ng libstdcxx libgfortran-ng gcc gxx "
        "gcc_linux-64 gxx_linux-64 compilers cxx-compiler c-compiler make cmake ninja "
        "openssl ca-certificates zlib bzip2 xz libffi ncurses readline sqlite tk ld_impl_linux-64 "
        "libuuid libnsl libsqlite libzlib": "it is no Python package; leave it out",
        "r-base nodejs openjdk ffmpeg graphviz git": "it is no Python package, and projects get "
        "no programs besides Python",
    }.items()
    for name in names.split()
}
