# Three images from one file; docker-compose.yml builds those that are asked for.
#   docker build --target bot -t avatar-bot .                 no torch
#   docker build --target engine -t avatar-engine .           CUDA
#   docker build --target engine-cpu -t avatar-engine-cpu .   the CPU build of torch, which is offered for Python 3.11
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 AVATAR_HOME=/data HF_HOME=/data/huggingface
WORKDIR /app
RUN useradd --uid 10001 --no-create-home avatar && install -d -o avatar -g avatar -m 700 /data
VOLUME /data

FROM base AS bot
COPY requirements-bot.lock ./
RUN pip install --require-hashes -r requirements-bot.lock
COPY LICENSE ./
COPY storage ./storage
COPY bot ./bot
USER avatar
EXPOSE 8765
CMD ["python", "-m", "bot", "chat", "--host", "0.0.0.0"]

FROM base AS engine
COPY requirements-cuda.lock ./
RUN pip install --require-hashes -r requirements-cuda.lock
COPY LICENSE ./
COPY storage ./storage
COPY engine ./engine
USER avatar
CMD ["python", "-m", "engine", "work"]

FROM base AS engine-cpu
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock --extra-index-url https://download.pytorch.org/whl/cpu
COPY LICENSE ./
COPY storage ./storage
COPY engine ./engine
USER avatar
CMD ["python", "-m", "engine", "work"]
