# avsdn_tf on CPUs.
#   docker build -t avsdn .
#   mkdir -p work
#   docker run --rm --user "$(id -u):$(id -g)" -e HOME=/tmp -v "$PWD/work:/work" avsdn --run=/work/runs/first
FROM python:3.11-slim

RUN useradd --create-home --uid=1000 avsdn
COPY . /src
RUN pip install --no-cache-dir "/src[export]" && rm -rf /src

# Mount a volume at /work for data sets and runs, writable by the container's user.
ENV TFDS_DATA_DIR=/work/tensorflow_datasets
RUN mkdir /work && chown 1000 /work
USER 1000
WORKDIR /work
ENTRYPOINT ["avsdn"]
