#!/usr/bin/env bash
# Estimate the views of a set on several nodes: sbatch examples/slurm.sh PHOTOS OUT. Both lie on a shared file system.
#SBATCH --job-name=nasrecon
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
set -euo pipefail
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# srun does not take --cpus-per-task from sbatch since Slurm 22.05.
srun --cpus-per-task "$SLURM_CPUS_PER_TASK" torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 4 --max-restarts 3 \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
  -m nasrecon infer "$1" --out "$2"
