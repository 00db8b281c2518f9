#!/bin/bash
# A million samples on two machines with four GPUs each: sbatch examples/slurm.sh plan MODEL samples
# It is safe to submit it again when it was stopped: it goes on with the shards that are missing.
#SBATCH --job-name=headstart
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --requeue
set -euo pipefail

plan=$1 model=$2 out=$3 # folders that all machines see
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun --kill-on-bad-exit torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node "${SLURM_GPUS_PER_NODE:-4}" \
    --rdzv-backend c10d --rdzv-endpoint "$first:29500" --rdzv-id "$SLURM_JOB_ID" \
    -m headstart sample "$plan" "$model" -n 1000000 --shards tar -o "$out" --device cuda --batch-size 512
