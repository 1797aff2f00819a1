"""Looking for mistakes in annotated folders, with the code by which trainings read them."""
