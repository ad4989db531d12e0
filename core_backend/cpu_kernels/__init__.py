"""Kernels for CPUs in C++, and how they are built; core_backend/ops/cpu_avx512 calls them."""
