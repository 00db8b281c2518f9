"""Plans that know the class, beside the usual samplers with the same labels, on Fashion-MNIST."""
