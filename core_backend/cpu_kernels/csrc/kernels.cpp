// All kernels, as one unit: torch's headers take most of the time that compiling takes.
#include "attention.cpp"
#include "elementwise.cpp"
#include "int8_linear.cpp"
#include "latent_attention.cpp"
#include "linear.cpp"
#include "moe.cpp"
#include "recorded_step.cpp"
